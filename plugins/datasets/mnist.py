"""The data set `mnist`: 70,000 handwritten digits, 1x28x28, from a folder or a checksummed download."""

from __future__ import annotations

from sparsebench.plugin import DatasetSpec, hookimpl


@hookimpl
def sparsebench_datasets() -> list[DatasetSpec]:
    """One spec."""
    return [
        DatasetSpec(
            name="mnist",
            summary="70,000 handwritten digits, 1x28x28, in its original IDX files",
            load="sparsebench.builtin.datasets._mnist:mnist",
            licence="CC BY-SA 3.0 (LeCun, Cortes & Burges)",
            classes=10,
        )
    ]
