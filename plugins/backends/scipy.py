"""SciPy's CSR product, the plain scalar loop that everyone has."""

from __future__ import annotations

from sparsebench.plugin import BackendSpec, hookimpl


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    """One backend."""
    return [
        BackendSpec(
            name="scipy",
            summary="scipy.sparse CSR products, single-threaded; conv2d through im2col; grad_weight by torch",
            load="sparsebench.builtin.backends._scipy:Scipy",
            peer=True,
            ops=("linear", "conv2d"),
            dtypes=("float32", "float64"),
            requires=("scipy",),
        )
    ]
