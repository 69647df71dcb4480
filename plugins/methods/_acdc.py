"""AC/DC: alternating compressed and decompressed training.

Peste et al., "AC/DC: Alternating Compressed/DeCompressed Training of Deep Neural Networks", NeurIPS 2021, section 3.
Phases are shares of the training, by default those of the paper's ImageNet recipe: of 100 epochs, 10 dense, then 5
and 5 in turn, 10 dense from 75 on, and 15 compressed at the end.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from sparsebench.plugin import Context, Event, Update, UsageError


class Phase(NamedTuple):
    """From this step on."""

    start: int
    compressed: bool


class ACDC:
    """Prunes at once to the full sparsity, trains, restores at zero, trains; ends compressed."""

    def __init__(self) -> None:
        self._phases: list[Phase] = []

    def setup(self, ctx: Context) -> None:
        """Look at the schedule before any work starts."""
        p = ctx.parameters
        together = p["warmup"] + p["last"] + p["finetune"]
        if not (p["warmup"] >= 0 and p["last"] >= 0 and p["finetune"] > 0 and p["phase"] > 0 and together <= 1 + 1e-9):
            raise UsageError(
                f"acdc: warmup = {p['warmup']:g}, phase = {p['phase']:g}, last = {p['last']:g} and finetune = "
                f"{p['finetune']:g} are shares of one training: above 0 (warmup, last: at least 0), at most 1 together"
            )
        if 1e-9 < 1 - together < p["phase"] - 1e-9:
            raise UsageError(
                f"acdc: phase = {p['phase']:g} is longer than the share {1 - together:g} in which phases alternate"
            )
        self._phases = self.phases(ctx)

    @staticmethod
    def phases(ctx: Context) -> list[Phase]:
        """All phases after the dense warm-up, in order, dense and compressed in turn.

        Those that are shorter than a step are left out, and what follows one of its own kind is part of it: to restore
        a model that is dense already would only cost it its momentum.
        """
        p, steps = ctx.parameters, ctx.steps
        rest = max(0.0, 1 - p["warmup"] - p["last"] - p["finetune"])
        # Pairs, for an odd number of phases begins and ends compressed; so they are stretched a little to fit.
        half = min(round((rest / p["phase"] - 1) / 2), steps)
        count = 2 * half + 1 if rest > 0 else 0
        edges = [round(steps * (p["warmup"] + i * rest / count)) for i in range(count)]
        planned = [Phase(edge, i % 2 == 0) for i, edge in enumerate(edges)]
        planned.append(Phase(round(steps * (1 - p["last"] - p["finetune"])), False))
        planned.append(Phase(min(round(steps * (1 - p["finetune"])), max(0, steps - 1)), True))
        real = [a for a, b in zip(planned, [*planned[1:], Phase(steps, False)], strict=True) if a.start < b.start]
        before = [False, *(phase.compressed for phase in real[:-1])]
        return [phase for phase, kind in zip(real, before, strict=False) if phase.compressed != kind]

    def on_event(self, event: Event, ctx: Context) -> Update | None:
        """At the beginning of a phase: prune, or restore and forget all momentum."""
        if event is not Event.STEP_BEGIN:
            return None
        now = next((phase for phase in self._phases if phase.start == ctx.step), None)
        if now is None:
            return None
        if not now.compressed:
            masks = {name: torch.ones_like(mask) for name, mask in ctx.masks.items()}
            return Update(masks=masks, sparsity=0.0, reset="all")
        if now == self._phases[-1] and all(bool(mask.all()) for mask in ctx.masks.values()):
            ctx.snapshot("dense")  # the twin: the end of the last dense phase
        return Update(masks=ctx.select({name: weight.abs() for name, weight in ctx.prunable.items()}))

    def export(self, ctx: Context) -> dict[str, dict[str, torch.Tensor]]:
        """The sparse model, and its dense twin if the last phase but one was dense."""
        twin = {"dense": ctx.snapshot_state("dense")} if "dense" in ctx.snapshots else {}
        return {"sparse": ctx.state(), **twin}
