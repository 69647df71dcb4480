"""The data set `toy-text`: sentences of a small grammar, made on the spot, so that text cases run everywhere."""

from __future__ import annotations

from sparsebench.plugin import DatasetSpec, hookimpl


@hookimpl
def sparsebench_datasets() -> list[DatasetSpec]:
    """One spec."""
    return [
        DatasetSpec(
            name="toy-text",
            summary="text: 80,000 characters of a small grammar, made on the spot, its entropy known",
            load="sparsebench.builtin.datasets._toy_text:load",
            licence="none needed: generated",
            classes=29,
        )
    ]
