"""The method `acdc`: alternating compressed and decompressed training."""

from __future__ import annotations

from sparsebench.plugin import MethodSpec, hookimpl


@hookimpl
def sparsebench_methods() -> list[MethodSpec]:
    """One spec."""
    return [
        MethodSpec(
            name="acdc",
            summary="AC/DC: dense and sparse phases in turn; gives a sparse and a dense model",
            load="sparsebench.builtin.methods._acdc:ACDC",
            kind="alternating",
            source='Peste et al., "AC/DC", NeurIPS 2021, section 3 and its ImageNet recipe',
            parameters={"warmup": 0.1, "phase": 0.05, "last": 0.1, "finetune": 0.15},
        )
    ]
