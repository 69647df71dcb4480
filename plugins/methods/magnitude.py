"""The method `magnitude`: keeps the largest weights, once."""

from __future__ import annotations

from sparsebench.plugin import MethodSpec, hookimpl


@hookimpl
def sparsebench_methods() -> list[MethodSpec]:
    """One spec."""
    return [
        MethodSpec(
            name="magnitude",
            summary="keeps the largest weights in absolute value, in one shot",
            load="sparsebench.builtin.methods._magnitude:Magnitude",
            kind="one-shot",
            source='Han et al., "Learning both weights and connections", NeurIPS 2015, section 3; not retrained',
            proof="exact counts for all sizes, shares and ties; nested; permutation equivariant",
            cost="one sort of the weights",
        )
    ]
