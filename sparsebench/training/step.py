"""One optimizer step, with its time split into data, forward, backward, optimizer and mask."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import repeat
from typing import Protocol

import torch
from torch import nn

from sparsebench.errors import TrainingError
from sparsebench.pruning.loss import cross_entropy
from sparsebench.training.data import Examples
from sparsebench.training.diagnosis import first_not_finite

SPLITS = ("data", "forward", "backward", "optimizer", "mask")


class Holder(Protocol):
    """Who holds the masks: a `Host` with a method, or `FixedMasks`."""

    def step_begin(self) -> None:
        """Before the forward."""

    def run_step(self, closure: Callable[[], float]) -> None:
        """Run the closure, which does forward and backward; once unless a method wants otherwise."""

    def gradients_ready(self) -> bool:
        """Before the optimizer; False: it is to be left out."""

    def step_end(self) -> None:
        """After the optimizer."""


class StepRunner:
    """Calling it does one full optimizer step; `splits_ns` and `loss` are those of the last step.

    `batch` is one `Examples` that every step uses, or an iterator of them. What `holder` does counts as mask time:
    holding masks, asking a method, exchanging layers. A loss that is not finite raises `TrainingError`, naming the
    layer where it began, before it reaches the weights.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        batch: Examples | Iterator[Examples],
        holder: Holder,
    ) -> None:
        self.model, self.optimizer, self.holder = model, optimizer, holder
        self.batches = repeat(batch) if isinstance(batch, Examples) else batch
        self.splits_ns: dict[str, int] = dict.fromkeys(SPLITS, 0)
        self.loss = float("nan")
        self.steps = 0

    def __call__(self) -> None:
        """One step."""
        self.splits_ns = dict.fromkeys(SPLITS, 0)
        self._now, self._first = time.perf_counter_ns(), True
        batch = next(self.batches)
        self._lap("data")
        self.holder.step_begin()
        self._lap("mask")
        self.holder.run_step(lambda: self._closure(batch))
        self._lap("mask")
        wanted = self.holder.gradients_ready()
        self._lap("mask")
        if wanted:
            self.optimizer.step()
        self._lap("optimizer")
        self.holder.step_end()
        self._lap("mask")
        self.steps += 1

    @contextmanager
    def counted(self, split: str) -> Iterator[None]:
        """Time what is done outside of a step; `splits_ns` is then of that alone."""
        self.splits_ns = dict.fromkeys(SPLITS, 0)
        self._now = time.perf_counter_ns()
        yield
        self._lap(split)

    def _closure(self, batch: Examples) -> float:
        self._lap("mask")
        with torch.enable_grad():
            loss = cross_entropy(self.model(batch.inputs), batch.labels)
            value = loss.item()
            if self._first:  # a method may look at other weights after these
                self.loss, self._first = value, False
            if not abs(value) < float("inf"):
                where = first_not_finite(self.model, batch.inputs)
                raise TrainingError(f"the loss is {value} at step {self.steps}: {where}; lower the learning rate")
            self._lap("forward")
            self.optimizer.zero_grad()
            loss.backward()
        self._lap("backward")
        return value

    def _lap(self, split: str) -> None:
        now = time.perf_counter_ns()
        self.splits_ns[split] += now - self._now
        self._now = now
