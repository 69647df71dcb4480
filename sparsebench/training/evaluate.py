"""Accuracy, without moving anything: no random state, statistic or mode."""

from __future__ import annotations

import torch
from torch import nn

from sparsebench.errors import UsageError
from sparsebench.training.data import Examples

BATCH = 256


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
            for start in range(0, len(examples.labels), BATCH):
                logits = model(examples.inputs[start : start + BATCH])
                right += int((logits.argmax(1) == examples.labels[start : start + BATCH]).sum())
        finally:
            for module, mode in modes.items():
                module.training = mode
    return right / len(examples.labels)
