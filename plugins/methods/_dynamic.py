"""What SET and RigL share: a random mask, of which the smallest weights are exchanged for others as training goes on.

Evci et al., "Rigging the lottery", ICML 2020, section 3 and algorithm 1; the order of things and what becomes of a
weight that is dropped and grown at once are those of the authors' code. It differs in two points: ties are decided by
the index and not by noise, which lets a masked weight outrank a tiny one; and in short trainings updates are closer.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from sparsebench.builtin.methods._random import random_scores
from sparsebench.plugin import NM, BudgetError, Context, Event, Update, UsageError, top_k_mask

UPDATES = 20  # at least so many in the time that there are updates,
CLOSEST = 5  # but not closer than this many steps: RigL leaves out the optimizer's step at each


def exchanged(mask: Tensor, weight: Tensor, growth: Tensor, count: int) -> Tensor:
    """`mask` without the `count` smallest weights it keeps, and with as many others, of the largest `growth` (≥ 0).

    One that was just dropped may be grown again: it is not among the kept. All tensors have the weight's shape.
    """
    stays = top_k_mask(torch.where(mask, weight.abs(), -1.0), int(mask.sum()) - count)
    return stays | top_k_mask(torch.where(stays, -1.0, growth), count)


class Dynamic(ABC):
    """Draws a mask within the budget, and exchanges a falling share of it in every layer; no layer's count changes."""

    name: ClassVar[str]
    moment: ClassVar[Event]  # of a step, at which it is asked

    def setup(self, ctx: Context) -> Update:
        """The mask of the method `static`. Raises `UsageError` for parameters, `BudgetError` for N:M groups."""
        p = ctx.parameters
        if not 0 <= p["drop"] < 1:
            raise UsageError(
                f"{self.name}: drop = {p['drop']:g} is the share of weights dropped first; write 0 to 0.99"
            )
        if not 0 < p["end"] <= 1:
            raise UsageError(f"{self.name}: end = {p['end']:g} is a share of the training; write one above 0, up to 1")
        if p["interval"] < 2:
            raise UsageError(f"{self.name}: interval = {p['interval']} steps between updates; write at least 2")
        if isinstance(ctx.budgets().scope, NM):
            raise BudgetError(f"{self.name} exchanges weights over whole layers; use an allocator without groups")
        return Update(masks=ctx.select(random_scores(ctx)))

    @staticmethod
    def schedule(ctx: Context) -> range:
        """The steps of a training that have an update: every `interval`, from 0 to before the share `end`."""
        last = round(ctx.parameters["end"] * ctx.steps)
        return range(0, last, min(int(ctx.parameters["interval"]), max(CLOSEST, last // UPDATES)))

    def share(self, step: int, ctx: Context) -> float:
        """Of the kept weights of every layer, what is dropped at a step: `drop` at 0, along half a cosine to 0."""
        return ctx.parameters["drop"] / 2 * (1 + math.cos(math.pi * step / self.schedule(ctx).stop))

    def counts(self, step: int, ctx: Context) -> dict[str, int]:
        """How many weights each layer exchanges at a step; {} if none does. A dense layer has none to exchange for."""
        if step not in self.schedule(ctx):
            return {}
        share = self.share(step, ctx)
        found = {name: int(share * int(m.sum()) + 1e-9) for name, m in ctx.masks.items() if not bool(m.all())}
        return {name: count for name, count in found.items() if count}

    @abstractmethod
    def growth(self, name: str, ctx: Context) -> Tensor:
        """Scores ≥ 0 of the weight's shape; the highest grow."""

    def on_event(self, event: Event, ctx: Context) -> Update | None:
        """At its moment of a step that has an update: the exchanged masks."""
        if event is not self.moment:
            return None
        counts = self.counts(ctx.step - (event is Event.STEP_END), ctx)  # there the host has counted the step
        if not counts:
            return None
        masks = {
            name: exchanged(ctx.masks[name], ctx.prunable[name], self.growth(name, ctx), count)
            for name, count in counts.items()
        }
        return Update(masks=masks, reset="changed")
