"""SparseGPT: weights are pruned column by column, and those to the right make up for the error.

Frantar & Alistarh, "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot", ICML 2023, section 3 and
algorithm 1. The score of a weight is w² / U², where U is the diagonal of the upper Cholesky factor of the inverse
Hessian: the error that pruning it leaves after the columns to its right have answered.

What differs from the published code: counts are exact (its threshold prunes one weight of a block even at sparsity 0,
and equal scores together); columns that no input reaches have the lowest scores instead of being pruned whatever the
budget, and take what the live ones leave of it; convolutions are unfolded; N:M groups are those of the input channels
at one place of the window.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sparsebench.builtin.methods._sweep import sweep
from sparsebench.plugin import (
    NM,
    BudgetError,
    Calibration,
    Context,
    Update,
    UsageError,
    damped,
    hessian,
    inverse_factor,
    nm_mask,
    top_k_mask,
)


def shares(sizes: list[int], total: int) -> list[int]:
    """`total` shared out by size with the largest remainders, none above its size; of equal ones the first get more."""
    whole = sum(sizes)
    made = [total * size // whole for size in sizes]
    order = sorted(range(len(sizes)), key=lambda at: -(total * sizes[at] % whole))
    for at in order[: total - sum(made)]:
        made[at] += 1
    return made


class SparseGPT:
    """One update per layer, of masks and values; `block` columns at a time share a budget."""

    def setup(self, ctx: Context) -> None:
        """Look at parameters and budget before any work starts."""
        block, damp = ctx.parameters["block"], ctx.parameters["damp"]
        if not (isinstance(block, int) and block >= 1):
            raise UsageError(f"sparsegpt: block = {block!r}; use a whole number of columns, at least 1")
        if not 0 <= damp < float("inf"):
            raise UsageError(f"sparsegpt: damp = {damp!r}; use a share of the Hessian's mean diagonal, 0 or more")
        self._check(ctx)

    def compress(self, calibration: Calibration, ctx: Context) -> Iterator[Update]:
        """The layers in the order of execution, each on the inputs that the pruned ones before it give."""
        self._check(ctx)  # again: where a speedup is asked for, the budget is known only now
        for name in calibration.execution_order(ctx.model, ctx.prunable):
            if ctx.budget(name) < ctx.prunable[name].numel():
                yield self._layer(name, hessian(calibration, ctx.model, name), ctx)

    @staticmethod
    def _check(ctx: Context) -> None:
        if ctx.budgets().scope == "model":
            raise BudgetError(
                "sparsegpt: layers are pruned one after the other, so there is no budget for the whole model; "
                "use the allocator uniform, erk or nm:K:G"
            )

    def _layer(self, name: str, raw: Tensor, ctx: Context) -> Update:
        weight, budget = ctx.prunable[name], ctx.budgets()
        rule = budget.scope if isinstance(budget.scope, NM) and name in budget.groups else None
        made, damping = damped(raw, float(ctx.parameters["damp"]))
        if damping.note:
            ctx.note(damping.note)
        groups, width = made.shape[:2]
        order = self.order(weight, rule)
        columns = weight.double().reshape(groups, -1, width)[..., order]
        factor = inverse_factor(made[:, order][..., order])
        alive = ctx.masks[name].reshape(columns.shape)[..., order]
        reached = raw.diagonal(dim1=1, dim2=2)[:, None, order] > 0
        pruner = Columns(factor, alive, reached, rule, budget.layers[name], self.block(ctx, rule), name)
        values = sweep(columns, factor, pruner.block, pruner)
        back = order.argsort()
        return Update(
            masks={name: pruner.mask[..., back].reshape(weight.shape)},
            weights={name: values[..., back].reshape(weight.shape).to(weight.dtype)},
        )

    @staticmethod
    def order(weight: Tensor, rule: NM | None) -> Tensor:
        """Columns in the order of the weight; for N:M the input channels of one place of the window side by side."""
        columns = torch.arange(weight[0].numel())
        return columns if rule is None else columns.reshape(weight.shape[1], -1).T.reshape(-1)

    @staticmethod
    def block(ctx: Context, rule: NM | None) -> int:
        """Columns at a time; whole groups of them for N:M."""
        block = int(ctx.parameters["block"])
        return block if rule is None else max(1, block // rule.group) * rule.group


class Columns:
    """The choice of the sweep: which weights of a block, or of N:M groups, are kept when their first column is due."""

    def __init__(
        self, factor: Tensor, alive: Tensor, reached: Tensor, rule: NM | None, keep: int, block: int, name: str
    ) -> None:
        """`factor` [groups, columns, columns]; `alive` [groups, rows, columns] is what was not pruned before, `reached`
        [groups, 1, columns] where there are inputs; `keep` weights are kept, or what `rule` says."""
        if keep > int(alive.sum()):
            raise BudgetError(f"{name} is to keep {keep} weights, and {int(alive.sum())} are not pruned already")
        self.alive, self.reached, self.rule, self.block = alive, reached, rule, block
        self.mask = torch.zeros_like(alive)
        self._diagonal = factor.diagonal(dim1=1, dim2=2)[:, None]
        live = [int(part.sum()) for part in (alive & reached).split(block, -1)]
        dead = [int(part.sum()) for part in (alive & ~reached).split(block, -1)]
        first = min(keep, sum(live))  # a weight on an input that is always 0 does nothing
        rest = shares(dead, keep - first) if keep > first else [0] * len(dead)
        given = shares(live, first) if first else [0] * len(live)
        self._shares = [a + b for a, b in zip(given, rest, strict=True)]

    def __call__(self, j: int, rest: Tensor) -> Tensor:
        """Column j with its pruned weights at 0."""
        if j % (self.rule.group if self.rule is not None else self.block) == 0:
            self._choose(j, rest)
        return torch.where(self.mask[..., j], rest[..., 0], 0.0)

    def _choose(self, j: int, rest: Tensor) -> None:
        here = slice(j, j + (self.rule.group if self.rule is not None else self.block))
        score = (rest[..., : here.stop - j] / self._diagonal[..., here]).square()
        score = torch.where(self.reached[..., here], score, 0.0)
        score = torch.where(self.alive[..., here], score, -1.0)
        if self.rule is None:
            self.mask[..., here] = top_k_mask(score, self._shares[j // self.block])
        else:
            self.mask[..., here] = nm_mask(score.flatten(0, 1), *self.rule).reshape(score.shape)
