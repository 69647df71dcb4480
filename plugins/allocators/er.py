"""The allocator `er`: denser layers where there are fewer neurons."""

from __future__ import annotations

from sparsebench.plugin import AllocatorSpec, hookimpl


@hookimpl
def sparsebench_allocators() -> list[AllocatorSpec]:
    """One spec."""
    return [
        AllocatorSpec(
            name="er",
            summary="Erdős-Rényi: density by (in + out) / (in · out); windows do not count",
            load="sparsebench.builtin.allocators._erdos_renyi:ER",
            source='Mocanu et al., "Scalable training of artificial neural networks", Nature Comm. 2018, equation 1',
        )
    ]
