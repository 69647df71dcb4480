"""The allocator `spdy`: sparsities by layer for a speedup, from measured times and the loss of the pruned model."""

from __future__ import annotations

from sparsebench.plugin import AllocatorSpec, hookimpl


@hookimpl
def sparsebench_allocators() -> list[AllocatorSpec]:
    """One spec."""
    return [
        AllocatorSpec(
            name="spdy",
            summary="solves for a speedup by measured times, or for a sparsity, at the least loss",
            load="sparsebench.builtin.allocators._spdy:SPDY",
            source='Frantar & Alistarh, "SPDY: Accurate pruning with speedup guarantees", ICML 2022, section 3',
            parameters={"inits": 40, "patience": 20, "images": 256, "ends": False},
        )
    ]
