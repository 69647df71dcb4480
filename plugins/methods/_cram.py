"""CrAM and CrAM+: a step by the gradient at weights that were perturbed and compressed, like SAM for pruning.

Peste et al., "CrAM: A Compression-Aware Minimizer", ICLR 2023, algorithm 1. One step: g = grad L(w); w' = w + rho g,
not normalised; w'' = the largest weights of w' at a sparsity drawn from `sparsities`; the optimizer gets grad L(w''),
and with `plus` the sum of that and g. The weights are dense all along, and the statistics of norms move by the first
pass alone. Dropout drops the same in both passes, which the published code leaves to chance: the two are gradients of
one function then, and the random stream is that of a plain training.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from sparsebench.plugin import Calibration, Context, Update, UsageError


class CrAM:
    """Dense throughout; `compress` then keeps the largest weights, as `magnitude` does."""

    def __init__(self) -> None:
        self._levels: tuple[float, ...] = ()

    def setup(self, ctx: Context) -> None:
        """Look at the parameters and at the budget of every level before any work starts."""
        rho = float(ctx.parameters["rho"])
        if not (math.isfinite(rho) and rho >= 0):
            raise UsageError(f"cram: rho = {rho:g}; use a number that is not negative, as in cram@rho=0.05")
        self._levels = self.levels(str(ctx.parameters["sparsities"]), ctx.sparsity)
        for level in self._levels:
            ctx.budgets(level)

    @staticmethod
    def levels(text: str, sparsity: float) -> tuple[float, ...]:
        """Sparsities of "0.5/0.7/0.9"; "case" is that of the case."""
        try:
            found = tuple(sparsity if part == "case" else float(part) for part in text.split("/"))
        except ValueError:
            found = ()
        if not found or not all(0 <= level < 1 for level in found):
            raise UsageError(
                f"cram: sparsities = {text!r}; write shares of pruned weights in [0, 1) with slashes between, as in "
                "cram@sparsities=0.5/0.7/0.9, or case for the sparsity of the case"
            )
        return found

    def level(self, ctx: Context) -> float:
        """The sparsity of one step, each with the same chance."""
        return self._levels[int(torch.randint(len(self._levels), (), generator=ctx.generator))]

    def step(self, closure: Callable[[], float], ctx: Context) -> None:
        """The gradient at the weights, then that at the perturbed and compressed ones."""
        with torch.random.fork_rng(devices=[]):
            closure()
        parameters = dict(ctx.model.named_parameters())
        first = {name: p.grad.clone() for name, p in parameters.items() if p.grad is not None}
        rho = float(ctx.parameters["rho"])
        moved = {name: parameters[name].detach() + rho * grad for name, grad in first.items()}
        moved = {**ctx.prunable, **moved}  # a frozen layer has no gradient, and is compressed all the same
        masks = ctx.select({name: moved[name].abs() for name in ctx.prunable}, self.level(ctx), empty=True)
        for name, mask in masks.items():
            moved[name] = moved[name] * mask
            if not bool(mask.any()):
                ctx.note(f"no weight of {name} was left in a compressed pass")
        with ctx.perturbed(moved):
            closure()
        for name, parameter in parameters.items():
            if parameter.grad is not None and name in masks and ctx.parameters["sparse_grad"]:
                parameter.grad.mul_(masks[name])
            if ctx.parameters["plus"] and name in first:
                parameter.grad = first[name] if parameter.grad is None else parameter.grad.add_(first[name])

    def compress(self, calibration: Calibration | None, ctx: Context) -> Update:
        """The largest weights at the case's sparsity."""
        return Update(masks=ctx.select({name: weight.abs() for name, weight in ctx.prunable.items()}))
