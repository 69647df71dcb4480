"""The method `str`: soft thresholds, one a layer, that are trained with the weights."""

from __future__ import annotations

from sparsebench.plugin import MethodSpec, hookimpl


@hookimpl
def sparsebench_methods() -> list[MethodSpec]:
    """One spec."""
    return [
        MethodSpec(
            name="str",
            summary="STR: soft thresholds, one a layer, trained with the weights and steered to the sparsity",
            load="sparsebench.builtin.methods._str:STR",
            kind="reparametrised",
            source='Kusupati et al., "Soft Threshold Weight Reparameterization", ICML 2020, section 3',
            needs=frozenset({"reparametrise", "own_budget"}),
            parameters={"steer": True, "end": 0.7, "updates": 100, "start": -5.0, "decay": 0.03},
            proof="weights and the gradient of the threshold equal the formulas; without data the threshold decays as "
            "s0 (1 - lr decay)^t; the exported model has the same logits",
            cost="a soft threshold of all weights at each forward; a sort of them at each of the updates",
        )
    ]
