"""The method `lottery`: lottery tickets by iterative magnitude pruning."""

from __future__ import annotations

from sparsebench.plugin import MethodSpec, hookimpl


@hookimpl
def sparsebench_methods() -> list[MethodSpec]:
    """One spec."""
    return [
        MethodSpec(
            name="lottery",
            summary="lottery tickets: trains, prunes a fifth, rewinds, and again until it is sparse enough",
            load="sparsebench.builtin.methods._lottery:Lottery",
            kind="rounds",
            source='Frankle & Carbin, "The lottery ticket hypothesis", ICLR 2019, section 1; rewinding: Frankle et '
            "al., ICML 2020, section 4; of the learning rate alone: Renda et al., ICLR 2020, section 2",
            needs=frozenset({"rounds"}),
            parameters={"rate": 0.2, "rewind": "weights", "rewind_at": 0.05},
            proof="survivors are the snapshot bit for bit, the first round is plain training bit for bit",
            cost="one training a round: 11 more at a sparsity of 0.9",
        )
    ]
