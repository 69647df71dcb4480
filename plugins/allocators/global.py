"""The allocator `global`: all weights of the model compete with each other."""

from __future__ import annotations

from sparsebench.plugin import AllocatorSpec, hookimpl


@hookimpl
def sparsebench_allocators() -> list[AllocatorSpec]:
    """One spec."""
    return [
        AllocatorSpec(
            name="global",
            summary="all layers compete; a layer's sparsity is what comes out",
            load="sparsebench.builtin.allocators._global:Global",
            source='Blalock et al., "What is the state of neural network pruning?", MLSys 2020: global magnitude',
        )
    ]
