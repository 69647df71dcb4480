"""The data set `wikitext-2`: good articles of Wikipedia as bytes."""

from __future__ import annotations

from sparsebench.plugin import DatasetSpec, hookimpl


@hookimpl
def sparsebench_datasets() -> list[DatasetSpec]:
    """One spec."""
    return [
        DatasetSpec(
            name="wikitext-2",
            summary="text: Wikipedia articles as bytes; a perplexity per byte is not the published one per word",
            load="sparsebench.builtin.datasets._wikitext_2:load",
            licence="CC BY-SA 3.0 (Merity, Xiong, Bradbury & Socher)",
            classes=256,
        )
    ]
