"""Each layer's weights at several sparsities as a method would leave them, and the loss of models made of them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from sparsebench.errors import PluginError, UsageError
from sparsebench.pruning.contract import offers
from sparsebench.pruning.loss import cross_entropy
from sparsebench.pruning.masks import top_k_mask
from sparsebench.pruning.modes import evaluating
from sparsebench.pruning.weights import Weights

if TYPE_CHECKING:
    from sparsebench.pruning.calibration import Calibration
    from sparsebench.pruning.context import Context
    from sparsebench.pruning.host import Host

Database = dict[str, list[Tensor]]


def database_of(host: Host, sparsities: Sequence[float]) -> Database:
    """Weight -> its values at each sparsity, zeros included; at least one is kept.

    From the method's `levels(calibration, ctx, sparsities)` if it has that; of one that only compresses, from its
    `compress` on a copy of the model, once for each sparsity, with every layer at it; else by magnitude.
    """
    own = offers(host.method, "levels")
    if own is not None:
        return _checked(own(host.calibration, host.ctx, list(sparsities)), host.ctx.prunable, len(sparsities))
    compresses, acts = (offers(host.method, name) is not None for name in ("compress", "on_event"))
    if not compresses or (acts and not host.late):  # it prunes in the course of a training
        host.ctx.note("levels by magnitude: the method prunes in the course of a training")
        return {name: [_largest(weight, s) for s in sparsities] for name, weight in host.ctx.prunable.items()}
    made: Database = {name: [] for name in host.ctx.prunable}
    for sparsity in sparsities:
        weights = host.ctx.prunable if sparsity == 0 else _compressed(host, sparsity)
        for name, values in made.items():
            values.append(weights[name].clone())
    return made


def _largest(weight: Tensor, sparsity: float) -> Tensor:
    return weight * top_k_mask(weight.abs(), max(1, round((1 - sparsity) * weight.numel())))


def _compressed(host: Host, sparsity: float) -> Mapping[str, Tensor]:
    """What the method's `compress` makes of a copy of the model."""
    names = tuple(host.ctx.prunable)
    excluded = [name for name in host.ctx.layers if name not in host.ctx.prunable]
    inner = type(host)(
        copy.deepcopy(host.model), copy.deepcopy(host.method), _Even(), sparsity=sparsity, exclude=excluded,
        name=host.name, needs=host.needs, parameters=host.parameters, calibration=host.calibration,
        seed=host.ctx.generator.initial_seed(),
    )  # fmt: skip
    inner.begin()
    inner.finish()
    return Weights(inner.model, names)


class _Even:
    """The same sparsity everywhere, short of an empty layer."""

    def allocate(self, layers: Mapping[str, Tensor], target: float, ctx: Context) -> dict[str, float]:
        """Sparsity by layer."""
        return {name: min(target, 1 - 1 / weight.numel()) for name, weight in layers.items()}


def _checked(made: Any, layers: Mapping[str, Tensor], count: int) -> Database:
    for name, weight in layers.items():
        given = made.get(name, ())
        if len(given) != count or any(each.shape != weight.shape for each in given):
            raise PluginError(
                f"levels() must give {count} tensors {list(weight.shape)} for {name}; it gave {len(given)}"
            )
    return dict(made)


@dataclass(frozen=True)
class Stitched:
    """The loss of a model with some of its weights exchanged, over the first `images` of a calibration."""

    model: nn.Module
    calibration: Calibration
    images: int

    @torch.no_grad()
    def loss(self, weights: Mapping[str, Tensor]) -> float:
        """Mean loss with the statistics of norms as they are or as each batch has them, whichever is lower.

        After a one-shot compression every training makes statistics anew and keeps the better: a choice by the old ones
        alone is one for another model. The model is not copied; neither it nor the random state moves.
        """
        with evaluating(self.model):
            losses = [self._mean(weights)]
            norms = [m for m in self.model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
            for norm in norms:
                norm.training = True
            if norms:
                losses.append(self._mean(weights))
        return min(losses)

    def _mean(self, weights: Mapping[str, Tensor]) -> float:
        buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}  # a norm writes to its own
        total = seen = 0.0
        with torch.random.fork_rng(devices=[]):
            for inputs, labels in islice(self.calibration.batches(), -(-self.images // self.calibration.batch)):
                logits = functional_call(self.model, {**buffers, **weights}, (inputs,))
                total += float(cross_entropy(logits, labels)) * len(labels)
                seen += len(labels)
        return total / seen


def stitched(ctx: Context, images: int) -> Stitched:
    """The scorer of a context's model; raises `UsageError` without a calibration."""
    if ctx.calibration is None:
        raise UsageError("the loss of a pruned model needs examples: run it in a case, or give the host a calibration")
    return Stitched(ctx.model, ctx.calibration, images)
