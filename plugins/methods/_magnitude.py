"""Magnitude pruning in one shot, after training, within the budget that the allocator gives."""

from __future__ import annotations

from sparsebench.plugin import Calibration, Context, Update


class Magnitude:
    """Keeps the weights that are largest in absolute value; of equal ones, the first."""

    def compress(self, calibration: Calibration | None, ctx: Context) -> Update:
        """Masks from the weights as they are now."""
        return Update(masks=ctx.select({name: weight.abs() for name, weight in ctx.prunable.items()}))
