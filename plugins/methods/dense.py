"""The method `dense`: no pruning, the baseline of every accuracy case."""

from __future__ import annotations

from sparsebench.plugin import MethodSpec, hookimpl


@hookimpl
def sparsebench_methods() -> list[MethodSpec]:
    """One spec."""
    return [
        MethodSpec(
            name="dense",
            summary="keeps every weight: the baseline",
            load="sparsebench.builtin.methods._dense:Dense",
            kind="none",
            source="none: the control of every comparison",
            proof="is plain training bit for bit",
            cost="none",
        )
    ]
