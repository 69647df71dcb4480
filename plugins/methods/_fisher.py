"""What WoodFisher and M-FAC share: pruning by an inverse empirical Fisher matrix, after a training or in its course.

Singh & Alistarh, "WoodFisher", NeurIPS 2020, sections 3 and 4; Frantar, Kurtic & Alistarh, "M-FAC", NeurIPS 2021,
section 3. With F = damp·I + (1/m)·Σ g gᵀ over m mini-batch gradients g, removing weight q costs w_q² / (2 [F⁻¹]_qq),
and the others make up for it by -w_q / [F⁻¹]_qq · F⁻¹ e_q. The updates of all removed weights are summed, as in both
papers: that is exact for one weight, and an approximation for several. m is the number of gradients that were used.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice

import torch
from torch import Tensor

from sparsebench.builtin.methods._schedule import check_schedule, schedule
from sparsebench.plugin import (
    BudgetError,
    Calibration,
    Context,
    Event,
    UnsupportedError,
    Update,
    UsageError,
    gradient_count,
    sample_gradients,
)

SLAB = 32  # gradients at a time: wide enough for matrix products, small beside what is kept
DIGITS = 1e-12  # [F⁻¹]_qq is a small difference of numbers near 1/damp: below this share of them, it is rounding
LIMIT = 4e9  # bytes: what an inverse may take


class Inverse(ABC):
    """F⁻¹ of layers with `sizes` weights, from `count` gradients that come in slabs; float64, zero between blocks."""

    def __init__(self, sizes: Sequence[int], count: int, damp: float, block: int) -> None:
        self.sizes, self.count, self.damp, self.block = list(sizes), count, damp, block

    @classmethod
    @abstractmethod
    def memory(cls, sizes: Sequence[int], count: int, block: int) -> float:
        """Bytes that it will take."""

    @abstractmethod
    def add(self, gradients: Tensor) -> None:
        """Take a slab of gradients [k, weights]."""

    @abstractmethod
    def diagonal(self) -> Tensor:
        """[F⁻¹]_qq of every weight [weights], once every gradient was added."""

    @abstractmethod
    def product(self, vector: Tensor) -> Tensor:
        """F⁻¹ · vector [weights]."""


def parts(size: int, block: int) -> tuple[int, int]:
    """(how many blocks, the length of each but perhaps the last): at most `block` weights, as even as can be."""
    count = -(-size // block)
    return count, -(-size // count)


def saliency(weights: Tensor, diagonal: Tensor) -> Tensor:
    """What the loss rises by when each weight alone goes and the others make up for it [weights]."""
    return weights**2 / (2 * diagonal)


def updated(weights: Tensor, inverse: Inverse, diagonal: Tensor, removed: Tensor, keep: Tensor) -> Tensor:
    """Weights after those that are `removed` went and the others made up for it; exactly 0 where not `keep`."""
    change = inverse.product(torch.where(removed, weights / diagonal, 0.0))
    return torch.where(keep, weights - change, 0.0)


class FisherPruning:
    """A method whose scores and corrections come from `inverse`; it remembers nothing between events."""

    title: str
    inverse: type[Inverse]
    advice: str  # what to do where memory does not suffice
    least_block = 1

    def __init__(self) -> None:
        self._schedule: dict[int, float] = {}

    def setup(self, ctx: Context) -> None:
        """Look at all parameters, the memory and the schedule, before any work starts."""
        p = ctx.parameters
        for key, least in {"gradients": 1, "batch": 1, "block": self.least_block}.items():
            if p[key] < least:
                raise UsageError(f"{self.title}: {key} = {p[key]}; use a whole number of at least {least}")
        if not 0 < p["damp"] < float("inf"):
            raise UsageError(f"{self.title}: damp = {p['damp']:g}; use a number above 0, such as 1e-5")
        sizes = [weight.numel() for weight in ctx.prunable.values()]
        count = gradient_count(self._examples(ctx), p["gradients"])
        memory = self.inverse.memory(sizes, count, p["block"])
        if memory > LIMIT:
            raise UnsupportedError(
                f"{self.title}: {count} gradients of {sum(sizes)} weights at block = {p['block']} take "
                f"{memory / 1e9:.3g} GB, and {LIMIT / 1e9:g} are the limit; {self.advice}"
            )
        if count < p["gradients"]:
            said = f"{count} gradients of {p['batch']} examples each"
            ctx.note(f"{said}: calibration has no more, {p['gradients']} were asked for")
        if p["gradual"]:
            if ctx.steps == 0:
                raise BudgetError(f"{self.title}: gradual = true prunes in a training, and there is none; use epochs")
            check_schedule(self.title, ctx)
            self._schedule = schedule(ctx)

    def on_event(self, event: Event, ctx: Context) -> Update | None:
        """At the steps of the schedule, if it is gradual."""
        if event is not Event.STEP_BEGIN or ctx.step not in self._schedule:
            return None
        return self._pruned(ctx, self._schedule[ctx.step])

    def compress(self, calibration: Calibration | None, ctx: Context) -> Update | None:
        """After the training, unless it is gradual."""
        return None if ctx.parameters["gradual"] else self._pruned(ctx, ctx.sparsity)

    def _examples(self, ctx: Context) -> Calibration:
        """The same examples, split into a batch for every gradient."""
        assert ctx.calibration is not None  # the host sees to what a method needs
        return replace(ctx.calibration, batch=ctx.parameters["batch"])

    def _pruned(self, ctx: Context, sparsity: float) -> Update:
        shapes = {name: mask.shape for name, mask in ctx.masks.items()}
        weights = torch.cat([ctx.prunable[name].reshape(-1).double() for name in shapes])
        alive = torch.cat([mask.reshape(-1) for mask in ctx.masks.values()])
        inverse = self._inverse(ctx, alive)
        diagonal = inverse.diagonal()
        damp = ctx.parameters["damp"]
        if not bool((diagonal * damp > DIGITS).all()):  # nor is a NaN
            raise UsageError(f"{self.title}: damp = {damp:g} is lost beside gradients as large as these; raise it")
        masks = ctx.select(_split(self._scores(weights, diagonal, alive), shapes), sparsity)
        keep = torch.cat([masks[name].reshape(-1) for name in shapes])
        values = updated(weights, inverse, diagonal, alive & ~keep, keep)
        return Update(masks=masks, weights=self._like(ctx, values, shapes), sparsity=sparsity)

    @staticmethod
    def _like(ctx: Context, values: Tensor, shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
        """Each layer's in the type of its weight."""
        return {name: part.to(ctx.prunable[name].dtype) for name, part in _split(values, shapes).items()}

    def _inverse(self, ctx: Context, alive: Tensor) -> Inverse:
        """From the gradients of weights that are `alive`: what is masked is no part of the model."""
        p, examples = ctx.parameters, self._examples(ctx)
        count = gradient_count(examples, p["gradients"])
        inverse = self.inverse([mask.numel() for mask in ctx.masks.values()], count, p["damp"], p["block"])
        gradients = sample_gradients(examples, ctx.model, list(ctx.masks), count)
        while slab := list(islice(gradients, SLAB)):
            inverse.add(torch.stack(slab) * alive)
        return inverse

    @staticmethod
    def _scores(weights: Tensor, diagonal: Tensor, alive: Tensor) -> Tensor:
        """Saliency; below it what is pruned already, which stays so."""
        return torch.where(alive, saliency(weights, diagonal), -1.0)


def _split(flat: Tensor, shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    pieces = flat.split([shape.numel() for shape in shapes.values()])
    return {name: piece.reshape(shape) for (name, shape), piece in zip(shapes.items(), pieces, strict=True)}
