"""The method `gptq`: weights of a few bits, a control that prunes nothing."""

from __future__ import annotations

from sparsebench.plugin import MethodSpec, hookimpl


@hookimpl
def sparsebench_methods() -> list[MethodSpec]:
    """One spec."""
    return [
        MethodSpec(
            name="gptq",
            summary="weights rounded to a few bits, the later columns make up for it; prunes nothing",
            load="sparsebench.builtin.methods._gptq:GPTQ",
            kind="control",
            source='Frantar et al., "GPTQ", ICLR 2023, section 3 and algorithm 1',
            needs=frozenset({"calibration", "sequential"}),
            parameters={"bits": 4, "damp": 0.01, "group": 0, "block": 128, "order": False},
            proof="uncorrelated inputs give rounding to the nearest, bit for bit; on others its error is smaller",
            cost="one forward per layer, up to it, and O(columns^3) for its Hessian",
        )
    ]
