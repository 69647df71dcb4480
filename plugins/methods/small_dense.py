"""The method `small-dense`: a narrower network of as many weights, the baseline of sparse training."""

from __future__ import annotations

from sparsebench.plugin import MethodSpec, hookimpl


@hookimpl
def sparsebench_methods() -> list[MethodSpec]:
    """One spec."""
    return [
        MethodSpec(
            name="small-dense",
            summary="a narrower dense network with as many weights: what pruning has to beat",
            load="sparsebench.builtin.methods._small_dense:SmallDense",
            kind="fixed",
            source='the baseline "Small-Dense" of Evci et al., "Rigging the lottery", ICML 2020, section 4',
            needs=frozenset({"own_budget"}),
            proof="equals the network that is really that small, in outputs and over steps of training",
            cost="nothing: less if it were cut out",
        )
    ]
