"""The data set `noise`: random inputs of the shape a model takes, for cases that only time."""

from __future__ import annotations

from sparsebench.plugin import DatasetSpec, hookimpl


@hookimpl
def sparsebench_datasets() -> list[DatasetSpec]:
    """One spec."""
    return [
        DatasetSpec(
            name="noise",
            summary="random inputs of the model's own shape, for pure timing: nothing can be learnt",
            load="sparsebench.builtin.datasets._noise:load",
            licence="none needed: generated",
            classes=10,
        )
    ]
