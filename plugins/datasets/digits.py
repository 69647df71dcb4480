"""The data set `digits`: 1,797 real 8x8 images that come with scikit-learn, so it is always there."""

from __future__ import annotations

from sparsebench.plugin import DatasetSpec, hookimpl


@hookimpl
def sparsebench_datasets() -> list[DatasetSpec]:
    """One spec."""
    return [
        DatasetSpec(
            name="digits",
            summary="1,797 handwritten digits, 1x8x8, from scikit-learn (the default)",
            load="sparsebench.builtin.datasets._digits:load",
            licence="CC BY 4.0 (Alpaydin & Kaynak 1998, UCI repository)",
            classes=10,
        )
    ]
