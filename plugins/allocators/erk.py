"""The allocator `erk`: as `er`, with the window of convolutions counted."""

from __future__ import annotations

from sparsebench.plugin import AllocatorSpec, hookimpl


@hookimpl
def sparsebench_allocators() -> list[AllocatorSpec]:
    """One spec."""
    return [
        AllocatorSpec(
            name="erk",
            summary="Erdős-Rényi-Kernel: density by the sum over the product of all sizes",
            load="sparsebench.builtin.allocators._erdos_renyi:ERK",
            source='Evci et al., "Rigging the lottery", ICML 2020, section 3',
        )
    ]
