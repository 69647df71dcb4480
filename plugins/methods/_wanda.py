"""Wanda: pruning by weights and activations, without new values.

Sun et al., "A Simple and Effective Pruning Approach for Large Language Models", ICLR 2024, section 3. A weight's score
is its magnitude times the norm of its input over the calibration examples, and weights compete within one output, or
within N:M groups; with `rows=false` over the layer, as the authors' code can for images. Layers go in the order of
execution, each on the inputs that the pruned ones before it give. The paper prunes linear layers; the inputs of a
convolution are taken as those of the matrix product that it is.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sparsebench.plugin import (
    NM,
    BudgetError,
    Calibration,
    Context,
    Update,
    UsageError,
    input_norms,
    nm_mask,
    top_k_mask,
)


class Wanda:
    """One update per layer, of masks alone."""

    def setup(self, ctx: Context) -> None:
        """Look at the parameter and the budget before any work starts."""
        if not isinstance(ctx.parameters["rows"], bool):
            raise UsageError(f"wanda: rows = {ctx.parameters['rows']!r}; use true or false")
        self._check(ctx)

    def compress(self, calibration: Calibration, ctx: Context) -> Iterator[Update]:
        """The layers in their order."""
        self._check(ctx)  # again: where a speedup is asked for, the budget is known only now
        budget = ctx.budgets()
        for name in calibration.execution_order(ctx.model, ctx.prunable):
            weight, keep = ctx.prunable[name], budget.layers[name]
            if keep == weight.numel():
                continue
            score = self.score(weight, input_norms(calibration, ctx.model, name))
            score[~ctx.masks[name]] = -1.0  # what is pruned already stays so
            if isinstance(budget.scope, NM) and name in budget.groups:
                mask = nm_mask(score, *budget.scope)
            elif ctx.parameters["rows"]:
                mask = self.rows(score.flatten(1), keep).reshape(score.shape)
            else:
                mask = top_k_mask(score, keep)
            yield Update(masks={name: mask})

    @staticmethod
    def _check(ctx: Context) -> None:
        if ctx.budgets().scope == "model":
            raise BudgetError(
                "wanda: scores of different layers do not compare, so there is no budget for the whole model; "
                "use the allocator uniform, erk or nm:K:G"
            )

    @staticmethod
    def score(weight: Tensor, norms: Tensor) -> Tensor:
        """|weight| times the norms [groups, columns] of what each is multiplied with, float64 of the weight's shape."""
        groups, width = norms.shape
        return (weight.double().abs().reshape(groups, -1, width) * norms[:, None]).reshape(weight.shape)

    @staticmethod
    def rows(score: Tensor, keep: int) -> Tensor:
        """A mask of `keep` weights of [rows, columns]: as many in every row, and of the rest one in each row whose
        next score is among the highest; of equal ones the first."""
        base, rest = divmod(keep, len(score))
        order = score.argsort(dim=1, descending=True, stable=True)
        mask = torch.zeros_like(score, dtype=torch.bool).scatter_(1, order[:, :base], True)
        if rest:
            following = order[:, base, None]
            mask.scatter_(1, following, top_k_mask(score.gather(1, following), rest))
        return mask
