"""Magnitude pruning in one shot, within the budget of each layer."""

from __future__ import annotations

from sparsebench.plugin import Context, Update, top_k_mask


class Magnitude:
    """Keeps the weights that are largest in absolute value; of equal ones, the first."""

    def setup(self, ctx: Context) -> Update:
        """Masks from the weights as they are now."""
        return Update(masks={name: top_k_mask(p.detach().abs(), ctx.budget(name)) for name, p in ctx.prunable.items()})
