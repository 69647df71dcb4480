"""The method `obc`: exact optimal brain surgeon, layer by layer."""

from __future__ import annotations

from sparsebench.plugin import MethodSpec, hookimpl


@hookimpl
def sparsebench_methods() -> list[MethodSpec]:
    """One spec."""
    return [
        MethodSpec(
            name="obc",
            summary="exact OBS: one weight at a time, what is left of its row makes up for it",
            load="sparsebench.builtin.methods._obc:OBC",
            kind="one-shot",
            source='Frantar & Alistarh, "Optimal Brain Compression", NeurIPS 2022, section 4 (ExactOBS)',
            needs=frozenset({"calibration", "sequential"}),
            parameters={"damp": 0.01, "sequential": False, "columns": 4608},
            proof="survivors are the least squares on their support, and the losses add up to the quadratic error",
            cost="one forward per layer, columns^3 / 3 multiply-adds per row",
        )
    ]
