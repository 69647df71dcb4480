"""Accuracy cases: a whole training under a pruning method, to accuracy, sparsity, cost, and a model that was kept."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sparsebench.errors import BudgetError, DatasetMissing, InvariantError, UnsupportedError
from sparsebench.harness.cases.base import Order
from sparsebench.harness.cases.models import FEW, build_dense
from sparsebench.harness.cases.observing import compare_twin
from sparsebench.harness.cases.speedup import (
    asked,
    check_case,
    is_late,
    is_open,
    masks_to_try,
    measured,
    prunes,
    table_of,
)  # fmt: skip
from sparsebench.nn import Choice, choose
from sparsebench.nn.backends import BackendHandle
from sparsebench.pruning.calibration import Calibration
from sparsebench.pruning.contract import CALIBRATED
from sparsebench.pruning.export import check_export
from sparsebench.pruning.host import Host
from sparsebench.pruning.kernels import Kernels
from sparsebench.pruning.masks import apply_masks
from sparsebench.pruning.modes import evaluating
from sparsebench.pruning.sizes import byte_sizes, sparsities
from sparsebench.pruning.target import Speedup, check_reachable
from sparsebench.training.data import Examples, Splits, availability
from sparsebench.training.evaluate import evaluate, loss_metrics
from sparsebench.training.loop import TrainResult, train
from sparsebench.training.recipe import Recipe
from sparsebench.verify import Finding, compare_models

RECIPE = ("epochs", "batch", "lr", "momentum", "nesterov", "weight_decay", "optimizer", "seed")
CALIBRATION = 1024  # examples, unless the case says otherwise
NOTHING = Finding(True, "nothing", None, 0.0, 0.0)


def write_oracle(order: Order, path: Path) -> None:
    """None: what must hold of a training is checked all along it."""
    path.write_bytes(b"")


def unsupported(order: Order, backend: Any) -> str | None:
    """A budget on the method's own way that cannot be; raises before any work what is wrong with the case.

    That is a data set that is not here, a budget, a recipe, options or a checkpoint that cannot be.
    """
    missing = availability(order.entries["dataset"])
    if missing:
        raise DatasetMissing(missing)
    model, splits = build_dense(order)
    recipe = recipe_of(order)
    check_case(order)
    host = host_of(order, model, splits, late=is_open(order))
    host.ctx.budgets()  # what no method can meet is the case's fault
    kernels = kernels_of(order, first_batch(order, splits))
    if kernels is not None:
        placed = placed_on(kernels, host, model)
        if not any(choice.backend is not None for choice in placed):
            reasons = dict.fromkeys(choice.reason for choice in placed)
            return f"its backend can do no layer of {order.parameters['model']}: {'; '.join(reasons)}"[:300]
    try:
        host.begin(recipe.epochs, max(1, len(splits.train.labels) // recipe.batch))
    except BudgetError as error:  # on the way there: this method's
        return f"{host.name} cannot be run to {host.asked:g} with {order.parameters['allocator']}: {error}"
    return None


def make(order: Order, backend: Any) -> AccuracyJob:
    """The training of one method."""
    return AccuracyJob(order)


def recipe_of(order: Order) -> Recipe:
    """How the case trains."""
    given = {key: order.parameters[key] for key in RECIPE if key in order.parameters}
    return Recipe(**{**given, "epochs": int(given["epochs"])})


def first_batch(order: Order, splits: Splits) -> Examples:
    """The first training examples."""
    size = int(order.parameters["batch"])
    return Examples(splits.train.inputs[:size].contiguous(), splits.train.labels[:size])


def kernels_of(order: Order, batch: Examples) -> Kernels | None:
    """None where layers stay dense: no backend, torch's own, or nothing to prune."""
    if "backend" not in order.entries or not prunes(order.parameters):
        return None
    backend = order.made("backend")
    if getattr(backend, "dense", False):
        return None
    return Kernels(BackendHandle.made(backend, order.entries["backend"].spec), batch.inputs)


def placed_on(kernels: Kernels, host: Host, model: nn.Module) -> list[Choice]:
    """What the backend says of every prunable layer at the case's sparsity, by magnitude."""
    masks = masks_to_try(host)
    choices = choose(model, example_input=kernels.example_input, backend=kernels.backend, masks=masks)
    return [choice for choice in choices if any(f"{name}.weight" in masks for name in choice.names)]


def host_of(
    order: Order, model: nn.Module, splits: Splits, kernels: Kernels | None = None, late: bool = False,
    speedup: Speedup | None = None,
) -> Host:  # fmt: skip
    """The method's host, as the case says."""
    p, entry, allocator = order.parameters, order.entries["method"], order.made("allocator")
    needs = entry.spec.needs
    calibration = None
    if (needs | frozenset(getattr(allocator, "needs", ()))) & CALIBRATED:
        examples, count = splits.train, int(p.get("calibration", CALIBRATION))
        calibration = Calibration(examples.inputs, examples.labels, count, seed=int(p["seed"]))
    return Host(
        model, order.made("method"), allocator, sparsity=float(p["sparsity"]), seed=int(p["seed"]),
        exclude=p.get("exclude", ()), name=entry.spec.name, needs=needs, parameters=order.options.get("method"),
        kernels=kernels, calibration=calibration, late=late, speedup=speedup,
    )  # fmt: skip


class AccuracyJob:
    """One training from the first weights; on kernels while the pattern stands still if the case gives a backend."""

    def __init__(self, order: Order) -> None:
        self.order, self.note = order, ""
        self.model, self.splits = build_dense(order)
        self.fresh = copy.deepcopy(self.model)
        self.batch = first_batch(order, self.splits)
        self.kernels = kernels_of(order, self.batch)

    def verify(self, brief: bool = False) -> Finding:
        """Of kernels: logits and gradients at the case's sparsity against the dense model in float64."""
        if self.kernels is None:
            return NOTHING
        model = copy.deepcopy(self.fresh)
        masks = masks_to_try(host_of(self.order, model, self.splits, late=is_open(self.order)))
        apply_masks(model, masks)
        return compare_twin(
            model, masks, self.batch, self.kernels.backend, self.order.entries["backend"].spec.precision
        )

    def prepare(self, parameters: Mapping[str, Any]) -> None:
        """Say what is worth knowing: of the data, of layers that stay dense, of the calibration."""
        model = copy.deepcopy(self.fresh)
        host = host_of(self.order, model, self.splits, late=is_open(self.order))
        notes = [self.splits.note]
        if self.kernels is not None:
            placed = placed_on(self.kernels, host, model)
            sparse = sum(choice.backend is not None for choice in placed)
            can = "can run on" if host.late else "on"  # of a speedup it is not known yet which of them will
            notes.append(f"{sparse} of {len(placed)} layers {can} {self.order.parameters['backend']}")
            precision = self.order.entries["backend"].spec.precision
            notes.append("" if precision == "float32" else f"computed in {precision}, its reference in float32")
        if host.calibration is not None:
            notes.append(", ".join(f"calibration {key} {value}" for key, value in host.calibration.record.items()))
        self.note = "; ".join(filter(None, notes))

    def spread(self) -> bool:
        """A training runs once."""
        return False

    def run(self) -> None:
        """From the first weights to the end of the last epoch."""
        self.model = self.first_model()
        self.speedup = self._speedup()
        late = is_late(self.order)
        self.host = host_of(self.order, self.model, self.splits, self.kernels, late, self.speedup)
        self.order.state.parent.mkdir(exist_ok=True)
        try:
            if self.speedup is not None:
                check_reachable(self.speedup, self.host.allocator, self.host.ctx)
            self.result = train(self.model, self.splits, recipe_of(self.order), host=self.host, file=self.order.state)
        except BudgetError as error:
            if not is_open(self.order):
                raise
            raise UnsupportedError(str(error)) from error
        self.note = "; ".join(filter(None, (self.note, *self.host.notes)))

    def _speedup(self) -> Speedup | None:
        """What the cell asks for, with the table that every row of the case shares."""
        times = asked(self.order.parameters)
        if times is None or self.kernels is None:
            return None
        return Speedup(times, table_of(self.order, self.fresh, self.kernels))

    def first_model(self) -> nn.Module:
        """A copy of the model as it was before any training."""
        return copy.deepcopy(self.fresh)

    def inspect(self) -> Finding:
        """The models to keep are written, read back, and give the logits of the model that was trained."""
        few = self.splits.test.inputs[:FEW]
        self.twins: dict[str, float] = {}
        exports, where = self.host.export(), f"method {self.host.name}"
        if "sparse" not in exports:
            raise InvariantError("export", f"{where} exports {sorted(exports)}; one must be named 'sparse'")
        for name, state in exports.items():
            model = copy.deepcopy(self.fresh)
            unknown = state.keys() ^ model.state_dict().keys()
            if unknown:
                raise InvariantError("export", f"{where}, export {name!r}: other names: {sorted(unknown)[:3]}")
            masks = self.host.masks if name == "sparse" else {}
            with self._folder() as folder:
                check_export(state, masks, folder, f"{where}, export {name!r}", name)
            model.load_state_dict(state)
            if name != "sparse":
                self.twins[f"accuracy_{name}"] = evaluate(model, self.splits.test)
                continue
            finding = compare_models("logits of the export", [_logits(model, few)], [_logits(self.model, few)])
            if not finding.ok:
                return finding
        return NOTHING

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        """Where models are written: to be kept, or for as long as they are read back."""
        if self.order.models:
            kept = Path(self.order.models)
            kept.mkdir(parents=True, exist_ok=True)
            yield kept
        else:
            with tempfile.TemporaryDirectory() as folder:
                yield Path(folder)

    def recheck(self) -> Finding:
        """Nothing more: the row is one training."""
        return NOTHING

    def scores(self) -> tuple[dict[str, float], dict[str, float]]:
        """Where the time of a step went; accuracy, the three sparsities, seconds, bytes."""
        result = self.result
        return {name: ns / max(1, result.steps) for name, ns in result.splits_ns.items()}, {
            "accuracy": result.accuracy,
            "validation_accuracy": result.validation_accuracy,
            "loss": result.loss,
            **loss_metrics(result.test_loss, self.splits.test),
            "steps": float(result.steps),
            "training_seconds": result.seconds,
            **sparsities(copy.deepcopy(self.fresh), self.host.masks, self.batch.inputs),
            **{name: float(size) for name, size in byte_sizes(self.host.state(), self.host.masks).items()},
            **self.twins,
            **self.more_scores(result),
        }

    def more_scores(self, result: TrainResult) -> dict[str, float]:
        """Of a speedup what was promised and what came of it; more in other kinds of case."""
        if self.speedup is None or self.kernels is None:
            return {}
        model, precision = copy.deepcopy(self.fresh), self.order.entries["backend"].spec.precision
        model.load_state_dict(self.host.state())
        return measured(model, self.host.masks, self.speedup.table, self.kernels, precision)


@torch.no_grad()
def _logits(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    with evaluating(model):
        logits: torch.Tensor = model(inputs)
    return logits
