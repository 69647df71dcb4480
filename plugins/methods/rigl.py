"""The method `rigl`: the rigged lottery."""

from __future__ import annotations

from sparsebench.plugin import MethodSpec, hookimpl


@hookimpl
def sparsebench_methods() -> list[MethodSpec]:
    """One spec."""
    return [
        MethodSpec(
            name="rigl",
            summary="RigL: a random mask whose smallest weights are exchanged for those of the largest gradients",
            load="sparsebench.builtin.methods._rigl:RigL",
            kind="dynamic",
            source='Evci et al., "Rigging the lottery: making all tickets winners", ICML 2020, section 3, algorithm 1',
            needs=frozenset({"dense_grads"}),
            parameters={"drop": 0.3, "interval": 100, "end": 0.75},
            proof="without a drop it is `static` bit for bit; growth is a linear model's closed form",
            cost="a dense backward in place of a step, and two choices by rank per layer, at every update",
        )
    ]
