"""Gradual magnitude pruning: masks from magnitudes, at sparsities that rise along a cubic curve.

Zhu & Gupta, "To prune, or not to prune", 2017, equation 1. Their masked weights keep the value they were pruned with,
so that they may return when others have become smaller (`regrow=true`); most later work never takes one back.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparsebench.builtin.methods._schedule import check_schedule, schedule
from sparsebench.plugin import Context, Event, Update


class GMP:
    """Prunes in `updates` + 1 steps from `initial` to the case's sparsity, between the shares `begin` and `end`."""

    def __init__(self) -> None:
        self._pruned: dict[str, Tensor] = {}  # with regrow: what masked weights were when they were pruned
        self._schedule: dict[int, float] = {}

    def setup(self, ctx: Context) -> None:
        """Look at the schedule and at every budget on it, before any work starts."""
        check_schedule("gmp", ctx)
        self._schedule = self.schedule(ctx)

    @staticmethod
    def schedule(ctx: Context) -> dict[int, float]:
        """Sparsity by step; the last is the case's, whatever falls on one step in a short training."""
        return schedule(ctx)

    def on_event(self, event: Event, ctx: Context) -> Update | None:
        """At the steps of the schedule: masks of the largest weights."""
        if event is not Event.STEP_BEGIN:
            return None
        sparsity = self._schedule.get(ctx.step)
        return None if sparsity is None else self._update(ctx, sparsity)

    def _update(self, ctx: Context, sparsity: float) -> Update:
        weights = {name: weight.clone() for name, weight in ctx.prunable.items()}
        if not ctx.parameters["regrow"]:
            # Masked weights are 0, as a kept one may be too: below every kept weight, or a tie would bring one back.
            scores = {name: torch.where(ctx.masks[name], w.abs(), -1.0) for name, w in weights.items()}
            return Update(masks=ctx.select(scores, sparsity), sparsity=sparsity)
        for name, weight in weights.items():
            if name in self._pruned:
                weight[~ctx.masks[name]] = self._pruned[name][~ctx.masks[name]]
        masks = ctx.select({name: weight.abs() for name, weight in weights.items()}, sparsity)
        self._pruned = weights
        return Update(masks=masks, weights=weights, sparsity=sparsity)

    def state_dict(self) -> dict[str, Any]:
        """What pruned weights were."""
        return dict(self._pruned)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take it back."""
        self._pruned = dict(state)
