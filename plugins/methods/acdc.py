"""The method `acdc`: alternating compressed and decompressed training."""

from __future__ import annotations

from sparsebench.plugin import MethodSpec, hookimpl


@hookimpl
def sparsebench_methods() -> list[MethodSpec]:
    """One spec."""
    return [
        MethodSpec(
            name="acdc",
            summary="AC/DC: dense and sparse phases in turn; gives a sparse and a dense model",
            load="sparsebench.builtin.methods._acdc:ACDC",
            kind="alternating",
            source='Peste et al., "AC/DC", NeurIPS 2021, section 3 and its ImageNet recipe',
            proof="the trace is exactly {0, s}, of 2:4 too; restored weights and all momentum are 0; one phase equals "
            "one-shot and fine-tuning, bit for bit",
            cost="none beyond a plain training; steps of dense phases are dense",
            parameters={"warmup": 0.1, "phase": 0.05, "last": 0.1, "finetune": 0.15},
        )
    ]
