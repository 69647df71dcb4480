"""The method `set`: sparse evolutionary training."""

from __future__ import annotations

from sparsebench.plugin import MethodSpec, hookimpl


@hookimpl
def sparsebench_methods() -> list[MethodSpec]:
    """One spec."""
    return [
        MethodSpec(
            name="set",
            summary="SET: a random mask whose smallest weights are exchanged for random others",
            load="sparsebench.builtin.methods._set:SET",
            kind="dynamic",
            source='Mocanu et al., "Scalable training of artificial neural networks with adaptive sparse connectivity '
            'inspired by network science", Nature Communications 2018, algorithm 1; schedule of Evci et al., ICML 2020',
            parameters={"drop": 0.3, "interval": 100, "end": 0.75},
            proof="without a drop it is `static` bit for bit; growth passes a chi-square test over 10,000 draws",
            cost="two choices by rank per layer at every update",
        )
    ]
