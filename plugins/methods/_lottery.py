"""Lottery tickets: train, prune the smallest weights, go back to early weights, train again, to the wanted sparsity.

Frankle & Carbin, "The lottery ticket hypothesis", ICLR 2019, section 1 (back to the initial weights: rewind_at=0);
Frankle et al., "Linear mode connectivity and the lottery ticket hypothesis", ICML 2020, section 4 (back to an early
step); Renda et al., "Comparing rewinding and fine-tuning", ICLR 2020, section 2 (rewind=rate).
"""

from __future__ import annotations

import math

import torch

from sparsebench.plugin import BudgetError, Context, Event, Update, UsageError

REWINDS = ("weights", "rate")


class Lottery:
    """Rounds of training; each but the first begins by pruning `rate` of what is left and rewinding.

    With rewind=weights all that is trained, the optimizer's memory, norms' statistics, random state and schedule are as
    they were at the share `rewind_at` of the first training; with rewind=rate the schedule alone is.
    """

    def setup(self, ctx: Context) -> None:
        """Look at the parameters and at the budget of every round, before any work starts."""
        p = ctx.parameters
        if not 0 < p["rate"] < 1:
            raise UsageError(f"lottery: rate = {p['rate']:g} is the share pruned a round; write one between 0 and 1")
        if p["rewind"] not in REWINDS:
            raise UsageError(f"lottery: rewind = {p['rewind']!r}; write {' or '.join(REWINDS)}")
        if not 0 <= p["rewind_at"] < 1:
            raise UsageError(f"lottery: rewind_at = {p['rewind_at']:g} is a share of the training; write 0 up to 0.99")
        if ctx.steps == 0:
            raise BudgetError("lottery prunes between trainings, and there is none; write epochs above 0")
        for sparsity in self.sparsities(ctx):
            ctx.budgets(sparsity)

    @staticmethod
    def sparsities(ctx: Context) -> list[float]:
        """Of every round after the first, which is dense: 1 - (1 - rate)^round, and in the last the case's."""
        left = 1 - ctx.parameters["rate"]
        count = math.ceil(math.log(1 - ctx.sparsity) / math.log(left) - 1e-9)
        return [1 - left**i for i in range(1, count)] + [ctx.sparsity] * (count > 0)

    def rounds(self, ctx: Context) -> int:
        """The fewest that reach the case's sparsity."""
        return 1 + len(self.sparsities(ctx))

    @staticmethod
    def place(ctx: Context) -> int:
        """The step that is gone back to."""
        return min(round(ctx.parameters["rewind_at"] * ctx.steps), ctx.steps - 1)

    def on_event(self, event: Event, ctx: Context) -> Update | None:
        """A snapshot in the first round; at the beginning of every other: prune by the last one's weights, rewind."""
        if event is Event.STEP_BEGIN and ctx.round == 0 and ctx.rounds > 1 and ctx.step == self.place(ctx):
            ctx.snapshot()
        if event is not Event.ROUND_BEGIN:
            return None
        # Scores before anything is restored; what is pruned ranks below a kept weight that is 0.
        scores = {name: torch.where(ctx.masks[name], w.abs(), -1.0) for name, w in ctx.prunable.items()}
        sparsity = self.sparsities(ctx)[ctx.round - 1]
        ctx.restore(weights=ctx.parameters["rewind"] == "weights")
        return Update(masks=ctx.select(scores, sparsity), sparsity=sparsity)
