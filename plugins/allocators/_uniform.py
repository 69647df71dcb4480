"""The same sparsity for all layers between the first and the last of the model."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from sparsebench.plugin import BudgetError, Context


class Uniform:
    """Gives each layer the target; the model's first and last layer 0, also when others are excluded."""

    def allocate(self, layers: Mapping[str, Tensor], target: float, ctx: Context) -> dict[str, float]:
        """Sparsity by layer; raises `BudgetError` if no layer lies between the first and the last."""
        ends = {ctx.layers[0], ctx.layers[-1]}
        if target > 0 and not layers.keys() - ends:
            raise BudgetError(
                "uniform keeps the first and the last layer dense and there is no other to prune; use another allocator"
            )
        return {name: 0.0 if name in ends else target for name in layers}
