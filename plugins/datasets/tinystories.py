"""The data set `tinystories`: stories in words of small children, in the tokens of the model `stories260k`."""

from __future__ import annotations

from sparsebench.plugin import DatasetSpec, hookimpl


@hookimpl
def sparsebench_datasets() -> list[DatasetSpec]:
    """One spec."""
    return [
        DatasetSpec(
            name="tinystories",
            summary="text: the first of TinyStories in the 512 tokens of stories260k",
            load="sparsebench.builtin.datasets._tinystories:load",
            licence="CDLA-Sharing-1.0 (Eldan & Li 2023)",
            classes=512,
        )
    ]
