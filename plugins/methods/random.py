"""The method `random`: a random set of weights dropped after training, the control of one-shot methods."""

from __future__ import annotations

from sparsebench.plugin import MethodSpec, hookimpl


@hookimpl
def sparsebench_methods() -> list[MethodSpec]:
    """One spec."""
    return [
        MethodSpec(
            name="random",
            summary="drops random weights, in one shot: a control",
            load="sparsebench.builtin.methods._random:Random",
            kind="one-shot",
            source='the control "random" of Blalock et al., "What is the state of neural network pruning?", MLSys 2020',
            proof="exact counts; every weight is as likely as any other",
            cost="none",
        )
    ]
