"""SparseProp 0.1.14, the AVX2 kernels of Nikdan et al. (ICML 2023), with what they get wrong kept out."""

from __future__ import annotations

from sparsebench.plugin import BackendSpec, hookimpl


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    """One backend."""
    return [
        BackendSpec(
            name="sparseprop",
            summary="SparseProp 0.1.14: AVX2 kernels vectorized over the batch or the output row",
            load="sparsebench.builtin.backends._sparseprop:SparseProp",
            peer=True,
            ops=("linear", "conv2d"),
            isa=("avx2", "fma"),
            requires=("sparseprop",),
        )
    ]
