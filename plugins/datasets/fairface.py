"""The data set `fairface`: faces at 32x32 with race, gender and age, balanced over races and genders."""

from __future__ import annotations

from sparsebench.plugin import DatasetSpec, hookimpl


@hookimpl
def sparsebench_datasets() -> list[DatasetSpec]:
    """One spec."""
    return [
        DatasetSpec(
            name="fairface",
            summary="9,100 faces of FairFace, 3x32x32, labelled by gender, with race and age beside it",
            load="sparsebench.builtin.datasets._fairface:load",
            licence="CC BY 4.0 (Karkkainen & Joo 2021)",
            classes=2,
        )
    ]
