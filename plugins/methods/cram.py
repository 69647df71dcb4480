"""The method `cram`: training for weights that bear one-shot pruning."""

from __future__ import annotations

from sparsebench.plugin import MethodSpec, hookimpl


@hookimpl
def sparsebench_methods() -> list[MethodSpec]:
    """One spec."""
    return [
        MethodSpec(
            name="cram",
            summary="CrAM, CrAM+: steps by the gradient at compressed weights; dense until it is pruned in one shot",
            load="sparsebench.builtin.methods._cram:CrAM",
            kind="optimizer",
            source='Peste et al., "CrAM: A Compression-Aware Minimizer", ICLR 2023, section 3 and algorithm 1',
            needs=frozenset({"closure"}),
            parameters={"rho": 0.05, "plus": False, "sparsities": "case", "sparse_grad": True},
            proof="without perturbation and compression CrAM is SGD and CrAM+ SGD on twice the loss; without "
            "compression it is SAM by hand; norm statistics move once a step",
            cost="two forwards and two backwards a step, and a sort of all weights",
        )
    ]
