"""The data set `tiny-shakespeare`: a million characters of plays, the usual first text of a language model."""

from __future__ import annotations

from sparsebench.plugin import DatasetSpec, hookimpl


@hookimpl
def sparsebench_datasets() -> list[DatasetSpec]:
    """One spec."""
    return [
        DatasetSpec(
            name="tiny-shakespeare",
            summary="text: 1.1 million characters of Shakespeare's plays, 65 different ones",
            load="sparsebench.builtin.datasets._shakespeare:load",
            licence="public domain",
            classes=65,
        )
    ]
