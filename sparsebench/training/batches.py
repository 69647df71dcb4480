"""Batches in a new order every epoch, decided by the seed and the epoch alone: so any epoch can be resumed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch

from sparsebench.errors import UsageError
from sparsebench.training.data import Examples


def batches_per_epoch(examples: Examples, batch: int) -> int:
    """How many batches an epoch has; raises `UsageError` if there are no examples."""
    count = len(examples.labels)
    if count == 0:
        raise UsageError("there are no examples to train on")
    return count // min(batch, count)


def epoch_batches(examples: Examples, batch: int, seed: int, epoch: int) -> Iterator[Examples]:
    """The batches of one epoch, always `batch` examples (fewer only if there are fewer).

    What is left over is dropped: a last batch of one example would break batch norms, and steps of one shape are
    comparable in time.
    """
    count = len(examples.labels)
    batch = min(batch, count)
    digest = hashlib.sha256(f"{seed}/{epoch}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))
    order = torch.randperm(count, generator=generator)
    for start in range(0, count - batch + 1, batch):
        chosen = order[start : start + batch]
        yield Examples(examples.inputs[chosen], examples.labels[chosen])
