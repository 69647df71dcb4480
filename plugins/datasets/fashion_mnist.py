"""The data set `fashion-mnist`: 70,000 pictures of clothes, from a folder or a checksummed download."""

from __future__ import annotations

from sparsebench.plugin import DatasetSpec, hookimpl


@hookimpl
def sparsebench_datasets() -> list[DatasetSpec]:
    """One spec."""
    return [
        DatasetSpec(
            name="fashion-mnist",
            summary="70,000 pictures of clothes, 1x28x28, in its original IDX files",
            load="sparsebench.builtin.datasets._mnist:fashion_mnist",
            licence="MIT (Zalando Research)",
            classes=10,
        )
    ]
