"""Training cases: optimizer steps with a fixed pattern, or with `epochs` a whole training to its accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparsebench.harness.cases.base import Order
from sparsebench.harness.cases.models import ModelJob, unsupported, write_truth
from sparsebench.pruning.keeper import FixedMasks
from sparsebench.training.data import Examples
from sparsebench.training.evaluate import loss_metrics
from sparsebench.training.loop import train
from sparsebench.training.recipe import Recipe
from sparsebench.training.step import StepRunner
from sparsebench.verify import Finding

__all__ = ["TrainingJob", "make", "unsupported", "write_oracle"]
HYPER = ("lr", "momentum", "nesterov", "weight_decay", "optimizer")
STEP_LR = 1e-3  # steps that are only timed stay near the weights that were verified


def write_oracle(order: Order, path: Path) -> None:
    """Logits and gradients in train mode."""
    write_truth(order, path, train_mode=True)


def make(order: Order, backend: Any) -> TrainingJob:
    """The model of one variant."""
    return TrainingJob(order, backend)


class TrainingJob(ModelJob):
    """One optimizer step, or the whole training."""

    train_mode = True

    def prepare(self, parameters: Mapping[str, Any]) -> None:
        """A fresh optimizer over the first weights, and the better layout for the dense model."""
        self.hyper: dict[str, Any] = {key: parameters[key] for key in HYPER if key in parameters}
        self.splits_ns: dict[str, float] = {}
        self.metrics: dict[str, float] = {}
        names = dict(self.model.named_parameters())  # a layer that the backend cannot do stays dense, and masked
        self.masks = {name: mask for name, mask in self.subject.masks.items() if name in names}
        self.new_step()
        self.choose_layout(lambda: self.new_step()())
        self.run = self.train if "epochs" in parameters else self.step
        self.new_step()

    def new_step(self) -> StepRunner:
        """A step from the first weights on the verified batch, in the present layout."""
        self.restore()
        self.model.train()
        recipe = Recipe(**{"lr": STEP_LR, "weight_decay": 0.0, **self.hyper})
        optimizer = recipe.make_optimizer(self.model.parameters())
        batch = Examples(self.inputs, self.subject.batch.labels)
        self.runner = StepRunner(self.model, optimizer, batch, FixedMasks(self.model, self.masks))
        return self.runner

    def step(self) -> None:
        """One optimizer step."""
        self.runner()
        self.splits_ns = {name: float(ns) for name, ns in self.runner.splits_ns.items()}

    def train(self) -> None:
        """From the first weights to the end of the last epoch."""
        self.restore()
        p = self.order.parameters
        recipe = Recipe(epochs=int(p["epochs"]), batch=int(p["batch"]), seed=int(p["seed"]), **self.hyper)
        result = train(self.model, self.subject.splits, recipe, masks=self.masks)
        self.splits_ns = {name: ns / result.steps for name, ns in result.splits_ns.items()}
        self.metrics = {
            "accuracy": result.accuracy,
            "validation_accuracy": result.validation_accuracy,
            "loss": result.loss,
            **loss_metrics(result.test_loss, self.subject.splits.test),
            "steps": float(result.steps),
            "training_seconds": result.seconds,
        }

    def inspect(self) -> Finding:
        """A loss that is not finite has raised already; what the kernels do is looked at again in `recheck`."""
        return Finding(True, "loss", None, 0.0, 0.0)

    def scores(self) -> tuple[dict[str, float], dict[str, float]]:
        """Where the step's time went; accuracy and loss of a training."""
        return dict(self.splits_ns), dict(self.metrics)
