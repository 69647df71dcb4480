"""A training recipe: optimizer, learning rates, epochs; and the learning rate of every step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from sparsebench.errors import UsageError

WARM_UP = 0.1  # share of all steps in which the learning rate rises from near 0
OPTIMIZERS = ("sgd", "adam", "adamw")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is trained; `momentum` and `nesterov` are of SGD alone. No epochs: methods of one shot alone act."""

    epochs: int = 20
    batch: int = 32
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    optimizer: str = "sgd"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 0 or self.batch < 1:
            raise UsageError(f"epochs = {self.epochs} must not be negative, and batch = {self.batch} at least 1")
        for name in ("lr", "momentum", "weight_decay"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise UsageError(f"{name} = {value!r}; use a number that is not negative")
        if self.nesterov and self.momentum == 0:
            raise UsageError("nesterov = true needs a momentum above 0")
        if self.optimizer not in OPTIMIZERS:
            raise UsageError(f"optimizer = {self.optimizer!r}; use {', '.join(OPTIMIZERS)}")

    def make_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """A fresh optimizer."""
        chosen = list(parameters)
        if self.optimizer == "sgd":
            return torch.optim.SGD(chosen, lr=self.lr, momentum=self.momentum, nesterov=self.nesterov,
                                   weight_decay=self.weight_decay)  # fmt: skip
        kind = torch.optim.Adam if self.optimizer == "adam" else torch.optim.AdamW
        return kind(chosen, lr=self.lr, weight_decay=self.weight_decay)


def learning_rate(step: int, steps: int, peak: float) -> float:
    """A linear rise to `peak` over the first tenth of `steps`, then half a cosine down to almost 0."""
    rise = max(1, round(WARM_UP * steps))
    if step < rise:
        return peak * (step + 1) / rise
    return peak * 0.5 * (1 + math.cos(math.pi * (step + 1 - rise) / (steps - rise + 1)))
