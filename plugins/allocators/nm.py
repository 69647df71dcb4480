"""The allocator `nm:K:G`: K of every G weights along the input channels."""

from __future__ import annotations

from sparsebench.plugin import AllocatorSpec, hookimpl


@hookimpl
def sparsebench_allocators() -> list[AllocatorSpec]:
    """One spec."""
    return [
        AllocatorSpec(
            name="nm",
            summary="keeps K of every G weights along the input channels: nm:2:4",
            load="sparsebench.builtin.allocators._nm:FineGrained",
            source='Zhou et al., "Learning N:M fine-grained structured sparse networks", ICLR 2021; K is kept',
            argument="K:G, kept weights and group",
        )
    ]
