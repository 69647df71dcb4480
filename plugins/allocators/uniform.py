"""The allocator `uniform`: every layer gets the same sparsity, but the first and the last stay dense."""

from __future__ import annotations

from sparsebench.plugin import AllocatorSpec, hookimpl


@hookimpl
def sparsebench_allocators() -> list[AllocatorSpec]:
    """One spec."""
    return [
        AllocatorSpec(
            name="uniform",
            summary="the same sparsity in every layer; the first and the last stay dense",
            load="sparsebench.builtin.allocators._uniform:Uniform",
            source='Nikdan et al., "SparseProp", ICML 2023, section 4.2.2: first layer and classifier excluded',
        )
    ]
