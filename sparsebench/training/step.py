"""One optimizer step, with its time split into data, forward, backward, optimizer and mask."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from itertools import repeat

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsebench.errors import TrainingError
from sparsebench.pruning.masks import mask_factors
from sparsebench.training.data import Examples

SPLITS = ("data", "forward", "backward", "optimizer", "mask")


class StepRunner:
    """Calling it does one full optimizer step; `splits_ns` and `loss` are those of the last step.

    `batch` is one `Examples` that every step uses, or an iterator of them. With `masks` (bool, by parameter name)
    the weights they drop are zero from the start and after every step: masked dense training. Sparse modules hold
    no dropped weights and need none. `after_step` counts as mask time. A loss that is not finite raises
    `TrainingError` before it reaches the weights.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        batch: Examples | Iterator[Examples],
        masks: Mapping[str, Tensor] | None = None,
        after_step: Callable[[], object] | None = None,
    ) -> None:
        self.model, self.optimizer, self.after_step = model, optimizer, after_step
        self.batches = repeat(batch) if isinstance(batch, Examples) else batch
        self.factors = mask_factors(model, masks or {})
        self._apply_masks()
        self.splits_ns: dict[str, int] = dict.fromkeys(SPLITS, 0)
        self.loss = float("nan")
        self.steps = 0

    def __call__(self) -> None:
        """One step."""
        clock = time.perf_counter_ns
        started = clock()
        inputs, labels = next(self.batches)
        loaded = clock()
        loss = F.cross_entropy(self.model(inputs), labels)
        self.loss = loss.item()
        if not abs(self.loss) < float("inf"):
            raise TrainingError(f"the loss is {self.loss} at step {self.steps}; lower the learning rate")
        forwarded = clock()
        self.optimizer.zero_grad()
        loss.backward()
        backwarded = clock()
        self.optimizer.step()
        optimized = clock()
        self._apply_masks()
        if self.after_step is not None:
            self.after_step()
        times = (started, loaded, forwarded, backwarded, optimized, clock())
        self.splits_ns = {name: end - start for name, start, end in zip(SPLITS, times[:-1], times[1:], strict=True)}
        self.steps += 1

    @torch.no_grad()
    def _apply_masks(self) -> None:
        for parameter, keep in self.factors:
            parameter.mul_(keep)
