"""The one training loop: SGD with a warm-up and a cosine, deterministic given its seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sparsebench.errors import UsageError
from sparsebench.training.data import Examples, Splits
from sparsebench.training.step import SPLITS, StepRunner

WARM_UP = 0.1  # share of all steps in which the learning rate rises from near 0
EVALUATION_BATCH = 256


class TrainResult(NamedTuple):
    """What a training run came to."""

    accuracy: float  # on the test set, which is touched once, at the end
    validation_accuracy: float  # at the end; nothing is selected by it
    loss: float  # mean over the last epoch's steps
    seconds: float  # in steps, without evaluation
    splits_ns: dict[str, int]  # data, forward, backward, optimizer, mask: summed over all steps
    steps: int
    history: tuple[float, ...]  # validation accuracy after each epoch


def train(
    model: nn.Module,
    splits: Splits,
    *,
    epochs: int = 20,
    batch: int = 32,
    lr: float = 0.1,
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
    seed: int = 0,
    masks: Mapping[str, Tensor] | None = None,
    after_step: Callable[[], object] | None = None,
    progress: Callable[[int, float, float], object] | None = None,
) -> TrainResult:
    """Train `model` in place on `splits.train`.

    `masks` are held as in `StepRunner`. `progress(epoch, loss, validation_accuracy)` is called after every epoch,
    counted from 1. The global random state (dropout draws from it) is seeded here and put back at the end: the same
    seed gives the same weights with one thread. Raises `TrainingError` when the loss stops being finite.
    """
    if epochs < 1 or batch < 1:
        raise UsageError(f"epochs = {epochs} and batch = {batch} must be at least 1")
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum, weight_decay=weight_decay)
    per_epoch = len(splits.train.labels) // min(batch, len(splits.train.labels))
    totals, history, losses = dict.fromkeys(SPLITS, 0), [], [0.0]
    with _seeded(seed):
        step = StepRunner(model, optimizer, shuffled_batches(splits.train, batch, seed), masks, after_step)
        for epoch in range(epochs):
            model.train()
            losses = []
            for _ in range(per_epoch):
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(step.steps, epochs * per_epoch, lr)
                step()
                losses.append(step.loss)
                for name, ns in step.splits_ns.items():
                    totals[name] += ns
            history.append(evaluate(model, splits.validation))
            if progress is not None:
                progress(epoch + 1, sum(losses) / len(losses), history[-1])
    return TrainResult(
        accuracy=evaluate(model, splits.test),
        validation_accuracy=history[-1],
        loss=sum(losses) / len(losses),
        seconds=sum(totals.values()) / 1e9,
        splits_ns=totals,
        steps=step.steps,
        history=tuple(history),
    )


def learning_rate(step: int, steps: int, peak: float) -> float:
    """A linear rise to `peak` over the first tenth of `steps`, then half a cosine down to almost 0."""
    rise = max(1, round(WARM_UP * steps))
    if step < rise:
        return peak * (step + 1) / rise
    return peak * 0.5 * (1 + math.cos(math.pi * (step + 1 - rise) / (steps - rise + 1)))


def shuffled_batches(examples: Examples, batch: int, seed: int) -> Iterator[Examples]:
    """Batches without end: every epoch in a new order, always `batch` examples (fewer only if there are fewer).

    What is left of an epoch is dropped: a last batch of one example would break batch norms, and steps of one shape
    are comparable in time.
    """
    count = len(examples.labels)
    if count == 0:
        raise UsageError("there are no examples to train on")
    batch = min(batch, count)
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(count, generator=generator)
        for start in range(0, count - batch + 1, batch):
            chosen = order[start : start + batch]
            yield Examples(examples.inputs[chosen], examples.labels[chosen])


@torch.no_grad()
def evaluate(model: nn.Module, examples: Examples) -> float:
    """The share of `examples` that the model classifies right; moves no random state, statistics or mode."""
    if len(examples.labels) == 0:
        raise UsageError("there are no examples to evaluate on")
    modes = {module: module.training for module in model.modules()}
    right = 0
    with torch.random.fork_rng(devices=[]):
        model.eval()
        try:
            for start in range(0, len(examples.labels), EVALUATION_BATCH):
                logits = model(examples.inputs[start : start + EVALUATION_BATCH])
                right += int((logits.argmax(1) == examples.labels[start : start + EVALUATION_BATCH]).sum())
        finally:
            for module, mode in modes.items():
                module.training = mode
    return right / len(examples.labels)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
