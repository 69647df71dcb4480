"""Accuracy and loss, without moving anything: no random state, statistic or mode."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import nn

from sparsebench.errors import UsageError
from sparsebench.pruning.loss import cross_entropy
from sparsebench.pruning.modes import evaluating
from sparsebench.training.data import Examples

BATCH = 256
MOST_LABELS = 8192  # of one forward: 256 texts of 512 tokens would have logits of half a gigabyte


class Quality(NamedTuple):
    """How good a model is on some examples; of text every next token is an answer."""

    accuracy: float  # share of right answers
    loss: float  # mean cross-entropy in nats


def evaluate(model: nn.Module, examples: Examples) -> float:
    """The share of `examples` (of text, of next tokens) that the model gets right; see `judge`."""
    return judge(model, examples).accuracy


@torch.no_grad()
def judge(model: nn.Module, examples: Examples) -> Quality:
    """Accuracy and loss over `examples`; moves no random state, statistics or mode."""
    inputs, labels = examples
    if len(labels) == 0:
        raise UsageError("there are no examples to evaluate on")
    batch = max(1, min(BATCH, MOST_LABELS // labels[0].numel()))
    right, loss = 0, 0.0
    with torch.random.fork_rng(devices=[]), evaluating(model):
        for start in range(0, len(labels), batch):
            wanted = labels[start : start + batch]
            logits = model(inputs[start : start + batch])
            right += int((logits.argmax(-1) == wanted).sum())
            loss += float(cross_entropy(logits, wanted)) * wanted.numel()
    return Quality(right / labels.numel(), loss / labels.numel())


def loss_metrics(loss: float, examples: Examples) -> dict[str, float]:
    """A test loss as metrics of a row: {"test_loss": nats}, and of text {"perplexity": exp(nats)}.

    Nothing of a loss that is not finite: what cannot be averaged is not kept.
    """
    if not math.isfinite(loss):
        return {}
    text = {"perplexity": math.exp(loss)} if examples.labels.ndim > 1 and loss < 700 else {}
    return {"test_loss": loss, **text}
