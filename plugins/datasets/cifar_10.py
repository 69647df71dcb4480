"""The data set `cifar-10`: 60,000 small photographs, 3x32x32, from a folder; a part of it will do."""

from __future__ import annotations

from sparsebench.plugin import DatasetSpec, hookimpl


@hookimpl
def sparsebench_datasets() -> list[DatasetSpec]:
    """One spec."""
    return [
        DatasetSpec(
            name="cifar-10",
            summary="60,000 photographs of 10 things, 3x32x32, in its original binary files",
            load="sparsebench.builtin.datasets._cifar10:load",
            licence="none stated (Krizhevsky 2009): for research, cite it",
            classes=10,
        )
    ]
