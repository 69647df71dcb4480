"""Inference cases: the forward of a whole pruned model, its logits compared with the dense model's all along."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sparsebench.harness.cases.base import Order
from sparsebench.harness.cases.models import ModelJob, unsupported, write_truth
from sparsebench.pruning.masks import sparsity_of
from sparsebench.training.evaluate import judge, loss_metrics
from sparsebench.verify import Finding, compare_models

__all__ = ["InferenceJob", "make", "unsupported", "write_oracle"]


def write_oracle(order: Order, path: Path) -> None:
    """Logits and gradients in eval mode."""
    write_truth(order, path, train_mode=False)


def make(order: Order, backend: Any) -> InferenceJob:
    """The model of one variant."""
    return InferenceJob(order, backend)


class InferenceJob(ModelJob):
    """One forward of a batch in eval mode without gradients."""

    train_mode = False

    def prepare(self, parameters: Mapping[str, Any]) -> None:
        """Eval mode, and the better layout for the dense model."""
        self.model.eval()
        self.choose_layout(self.run)
        # What the weights came from says how right they ought to be; fresh ones are right by chance.
        self.quality = judge(self.model, self.subject.splits.test) if "checkpoint" in parameters else None

    @torch.no_grad()
    def run(self) -> None:
        """One batch."""
        self.logits = self.model(self.inputs)

    def scores(self) -> tuple[dict[str, float], dict[str, float]]:
        """Of a checkpoint its accuracy and loss on the test set, and how sparse it is."""
        if self.quality is None:
            return {}, {}
        loss = loss_metrics(self.quality.loss, self.subject.splits.test)
        return {}, {"accuracy": self.quality.accuracy, **loss, "sparsity": sparsity_of(self.subject.masks)}

    def inspect(self) -> Finding:
        """The last batch's logits."""
        return compare_models("logits", [self.logits], self.truth["first logits"], self.order.precision)
