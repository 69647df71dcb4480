"""The method `m-fac`: the inverse empirical Fisher matrix of the whole model, without writing it down."""

from __future__ import annotations

from sparsebench.plugin import MethodSpec, hookimpl


@hookimpl
def sparsebench_methods() -> list[MethodSpec]:
    """One spec: one-shot, though gradual=true prunes in the course of a training."""
    return [
        MethodSpec(
            name="m-fac",
            summary="M-FAC: as WoodFisher over the whole model, matrix-free; in one shot, or along a cubic curve",
            load="sparsebench.builtin.methods._mfac:MFAC",
            kind="one-shot",
            source='Frantar, Kurtic & Alistarh, "M-FAC", NeurIPS 2021, section 3',
            needs=frozenset({"calibration", "sample_grads"}),
            parameters={
                "gradients": 256, "batch": 4, "damp": 1e-5, "block": 0,
                "gradual": False, "begin": 0.1, "end": 0.7, "initial": 0.05, "updates": 8,
            },
            proof="equals the dense inverse, and WoodFisher with one block; every gradient counts",
            cost="a backward pass a gradient, 4·gradients bytes and gradients² operations a weight, at every update",
        )
    ]  # fmt: skip
