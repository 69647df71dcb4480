"""Gradual magnitude pruning: masks from magnitudes, at sparsities that rise along a cubic curve.

Zhu & Gupta, "To prune, or not to prune", 2017, equation 1. Their masked weights keep the value they were pruned with,
so that they may return when others have become smaller (`regrow=true`); most later work never takes one back.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparsebench.plugin import Context, Event, Update, UsageError


def cubic(place: float, initial: float, final: float) -> float:
    """Sparsity after the share `place` of the way; exactly `initial` at 0 and `final` at 1."""
    if place <= 0 or place >= 1:
        return initial if place <= 0 else final
    return final - (final - initial) * (1 - place) ** 3


class GMP:
    """Prunes in `updates` + 1 steps from `initial` to the case's sparsity, between the shares `begin` and `end`."""

    def __init__(self) -> None:
        self._pruned: dict[str, Tensor] = {}  # with regrow: what masked weights were when they were pruned
        self._schedule: dict[int, float] = {}

    def setup(self, ctx: Context) -> None:
        """Look at the schedule and at every budget on it, before any work starts."""
        begin, end, initial = (float(ctx.parameters[key]) for key in ("begin", "end", "initial"))
        if not 0 <= begin < end <= 1:
            raise UsageError(
                f"gmp prunes from begin = {begin:g} to end = {end:g}; use shares with 0 <= begin < end <= 1"
            )
        if not 0 <= initial < 1 or ctx.parameters["updates"] < 1:
            raise UsageError(f"gmp: initial = {initial:g} must be in [0, 1) and updates at least 1")
        self._schedule = self.schedule(ctx)
        for sparsity in self._schedule.values():
            ctx.budgets(sparsity)

    @staticmethod
    def schedule(ctx: Context) -> dict[int, float]:
        """Sparsity by step; the last is the case's, whatever falls on one step in a short training."""
        p = ctx.parameters
        first, last = round(p["begin"] * ctx.steps), round(p["end"] * ctx.steps)
        count, initial = min(int(p["updates"]), max(1, last - first)), min(float(p["initial"]), ctx.sparsity)
        places = [i / count for i in range(count + 1)]
        planned = {first + round(x * (last - first)): cubic(x, initial, ctx.sparsity) for x in places}
        return {min(step, max(0, ctx.steps - 1)): sparsity for step, sparsity in planned.items()}

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
