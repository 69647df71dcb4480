"""One budget for the whole model."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from sparsebench.plugin import Context


class Global:
    """All weights compete; none of the layers is kept dense for its place."""

    scope = "model"

    def allocate(self, layers: Mapping[str, Tensor], target: float, ctx: Context) -> dict[str, float]:
        """The target for every layer, which together is the budget."""
        return dict.fromkeys(layers, target)
