"""The method `woodfisher`: the inverse empirical Fisher matrix in small blocks."""

from __future__ import annotations

from sparsebench.plugin import MethodSpec, hookimpl


@hookimpl
def sparsebench_methods() -> list[MethodSpec]:
    """One spec: one-shot, though gradual=true prunes in the course of a training."""
    return [
        MethodSpec(
            name="woodfisher",
            summary="WoodFisher: what the loss rises by, from gradients; in one shot, or along a cubic curve",
            load="sparsebench.builtin.methods._woodfisher:WoodFisher",
            kind="one-shot",
            source='Singh & Alistarh, "WoodFisher", NeurIPS 2020, sections 3 and 4',
            needs=frozenset({"calibration", "sample_grads"}),
            parameters={
                "gradients": 256, "batch": 4, "damp": 1e-5, "block": 256,
                "gradual": False, "begin": 0.1, "end": 0.7, "initial": 0.05, "updates": 8,
            },
            proof="equals the dense inverse; one removed weight gives the minimum of the quadratic",
            cost="a backward pass a gradient, 8·block bytes and 4·gradients·block operations a weight, at every update",
        )
    ]  # fmt: skip
