"""GPTQ: weights are rounded to a grid column by column, and those to the right make up for the error.

Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", ICLR 2023, section
3 and algorithm 1. It stands beside the pruning methods as a control: with the same inputs and the same sweep it
changes values and prunes nothing. Weights stay float; what is measured is what the grid costs in accuracy.

The grid is symmetric: whole numbers from -(2^(bits-1) - 1) to 2^(bits-1) - 1 times a scale by which the largest weight
of a row, or of `group` columns of it, is the last of them. Scales of groups are those of the weights as the sweep has
left them when it comes to the group; the published code takes them from before the block. Columns that no input
reaches are rounded to the nearest.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sparsebench.builtin.methods._sweep import sweep
from sparsebench.plugin import Calibration, Context, Update, UsageError, damped, hessian, inverse_factor


class Grid:
    """The choice of the sweep: column j rounded to the nearest value of its row's grid."""

    def __init__(self, bits: int, group: int) -> None:
        self.levels, self.group = 2 ** (bits - 1) - 1, group
        self._scale = torch.ones(())

    def __call__(self, j: int, rest: Tensor) -> Tensor:
        """[groups, rows]; a new scale where a group of columns begins."""
        if j == 0 or (self.group and j % self.group == 0):
            largest = rest[..., : self.group or None].abs().amax(-1)
            self._scale = torch.where(largest > 0, largest / self.levels, 1.0)
        return (rest[..., 0] / self._scale).round().clamp(-self.levels, self.levels) * self._scale


class GPTQ:
    """One update per layer, of values alone."""

    def setup(self, ctx: Context) -> None:
        """Look at the parameters before any work starts."""
        p = ctx.parameters
        for name, least, most, what in (
            ("bits", 2, 16, "2 to 16"),
            ("group", 0, None, "0 for one scale a row, or so many columns"),
            ("block", 1, None, "at least 1 column"),
        ):
            value = p[name]
            if not isinstance(value, int) or value < least or (most is not None and value > most):
                raise UsageError(f"gptq: {name} = {value!r}; use a whole number, {what}")
        if not 0 <= p["damp"] < float("inf"):
            raise UsageError(f"gptq: damp = {p['damp']!r}; use a share of the Hessian's mean diagonal, 0 or more")
        if p["group"] and p["block"] % p["group"] and p["group"] % p["block"]:
            raise UsageError(
                f"gptq: group = {p['group']} and block = {p['block']}; one must be a multiple of the other"
            )

    def compress(self, calibration: Calibration, ctx: Context) -> Iterator[Update]:
        """The layers in the order of execution, each on the inputs that the rounded ones before it give."""
        for name in calibration.execution_order(ctx.model, ctx.prunable):
            yield Update(weights={name: self._layer(name, hessian(calibration, ctx.model, name), ctx)})

    @staticmethod
    def _layer(name: str, raw: Tensor, ctx: Context) -> Tensor:
        p, weight = ctx.parameters, ctx.prunable[name]
        made, damping = damped(raw, float(p["damp"]))
        if damping.note:
            ctx.note(damping.note)
        groups, width = made.shape[:2]
        # One order for all groups of a convolution: its columns are those of the same places in each of them.
        importance = raw.diagonal(dim1=1, dim2=2).sum(0)
        order = importance.argsort(descending=True, stable=True) if p["order"] else torch.arange(width)
        columns = weight.double().reshape(groups, -1, width)[..., order]
        grid = Grid(p["bits"], p["group"])
        rounded = sweep(columns, inverse_factor(made[:, order][..., order]), p["block"], grid)
        return rounded[..., order.argsort()].reshape(weight.shape).to(weight.dtype)
