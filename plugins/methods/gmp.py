"""The method `gmp`: gradual magnitude pruning along a cubic curve."""

from __future__ import annotations

from sparsebench.plugin import MethodSpec, hookimpl


@hookimpl
def sparsebench_methods() -> list[MethodSpec]:
    """One spec."""
    return [
        MethodSpec(
            name="gmp",
            summary="gradual magnitude pruning along a cubic curve",
            load="sparsebench.builtin.methods._gmp:GMP",
            kind="gradual",
            source='Zhu & Gupta, "To prune, or not to prune", 2017, equation 1',
            proof="the curve is exact at both ends and monotone; with a learning rate of 0 it equals one-shot",
            cost="a sort of all weights at each of the updates",
            parameters={"begin": 0.1, "end": 0.7, "initial": 0.05, "updates": 20, "regrow": False},
        )
    ]
