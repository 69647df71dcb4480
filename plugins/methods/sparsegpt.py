"""The method `sparsegpt`: one-shot pruning with an update of what is left."""

from __future__ import annotations

from sparsebench.plugin import MethodSpec, hookimpl


@hookimpl
def sparsebench_methods() -> list[MethodSpec]:
    """One spec."""
    return [
        MethodSpec(
            name="sparsegpt",
            summary="pruning column by column, what is left makes up for it (second order, from inputs); one-shot",
            load="sparsebench.builtin.methods._sparsegpt:SparseGPT",
            kind="one-shot",
            source='Frantar & Alistarh, "SparseGPT", ICML 2023, section 3 and algorithm 1',
            needs=frozenset({"calibration", "sequential"}),
            parameters={"block": 128, "damp": 0.01},
            proof="uncorrelated inputs of one norm give magnitude 2:4; the error lies between exact least squares and "
            "the mask alone",
            cost="one forward per layer, up to it, and O(columns^3) for its Hessian",
        )
    ]
