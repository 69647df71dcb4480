"""The method `static`: a fixed random mask, the floor every other method has to beat."""

from __future__ import annotations

from sparsebench.plugin import MethodSpec, hookimpl


@hookimpl
def sparsebench_methods() -> list[MethodSpec]:
    """One spec."""
    return [
        MethodSpec(
            name="static",
            summary="a random mask, drawn once and never changed",
            load="sparsebench.builtin.methods._static:Static",
            kind="fixed",
            source='the baseline "Static" of Evci et al., "Rigging the lottery", ICML 2020, section 4',
            proof="exact counts; a mask does not depend on other layers; equals training under a fixed mask",
            cost="none",
        )
    ]
