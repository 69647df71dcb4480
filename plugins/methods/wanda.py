"""The method `wanda`: pruning by weights and activations."""

from __future__ import annotations

from sparsebench.plugin import MethodSpec, hookimpl


@hookimpl
def sparsebench_methods() -> list[MethodSpec]:
    """One spec."""
    return [
        MethodSpec(
            name="wanda",
            summary="the smallest weights times the norms of their inputs, in every output by itself; one-shot",
            load="sparsebench.builtin.methods._wanda:Wanda",
            kind="one-shot",
            source='Sun et al., "A Simple and Effective Pruning Approach for LLMs" (Wanda), ICLR 2024, section 3',
            needs=frozenset({"calibration", "sequential"}),
            parameters={"rows": True},
            proof="inputs of one norm give magnitude by rows; scaling an input against its weights changes no mask",
            cost="one forward per layer, up to it",
        )
    ]
