"""Whole models: one mistake of a backend in one layer is caught, in inference and in training, before and after."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sparsebench.errors import DatasetMissing, UnsupportedError
from sparsebench.harness.cases import inference, training
from sparsebench.harness.cases.base import Order, case_kind
from sparsebench.plugin import BackendSpec, PluginInfo, Problem
from sparsebench.registry import Entry, Registry, Source, load_registry
from sparsebench.testing.honest import HonestBackend, HonestKernel

KINDS = {"inference": inference, "training": training}
PARAMETERS = {"model": "mlp", "dataset": "digits", "batch": 16, "method": "static", "allocator": "uniform",
              "sparsity": 0.9, "seed": 0, "threads": 1}  # fmt: skip
MakeOrder = Callable[..., Order]


class WrongForward(HonestKernel):
    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        return -super().forward(x, bias)


class WrongGradInput(HonestKernel):
    def backward(self, *args: Any, **rest: Any) -> Any:
        grad_input, grad_values = super().backward(*args, **rest)
        return None if grad_input is None else -grad_input, grad_values


class WrongGradValues(HonestKernel):
    def backward(self, *args: Any, **rest: Any) -> Any:
        grad_input, grad_values = super().backward(*args, **rest)
        return grad_input, None if grad_values is None else -grad_values


class SlightlyWrongGradient(HonestKernel):
    """Two percent off: a hundred thousand times what float32 does to a small model."""

    def backward(self, *args: Any, **rest: Any) -> Any:
        grad_input, grad_values = super().backward(*args, **rest)
        return grad_input, None if grad_values is None else grad_values * 1.02


class OneWrongValue(HonestKernel):
    def backward(self, *args: Any, **rest: Any) -> Any:
        grad_input, grad_values = super().backward(*args, **rest)
        if grad_values is not None:
            grad_values[torch.argmax(grad_values.abs())] *= -1
        return grad_input, grad_values


class StaleValues(HonestKernel):
    def set_values(self, values: Tensor) -> None:
        pass


class StaleGradient(HonestKernel):
    """Forward takes the new values, grad_input the first ones."""

    def backward(self, x: Tensor, grad_output: Tensor, *args: Any, **rest: Any) -> Any:
        grad_input, grad_values = super().backward(x, grad_output, *args, **rest)
        return None if grad_input is None else grad_output @ self.weight.to_dense(), grad_values


class Unwritten(HonestKernel):
    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        right = super().forward(x, bias)
        output = torch.empty_like(right)
        output[:, 1:] = right[:, 1:]
        return output


class Dense(HonestBackend):
    dense = True


@pytest.fixture(scope="module")
def installed() -> Registry:
    return load_registry()


@pytest.fixture(scope="module")
def order(installed: Registry, tmp_path_factory: pytest.TempPathFactory) -> MakeOrder:
    """An order with its truth written: made once for each set of parameters."""
    folder = tmp_path_factory.mktemp("oracles")
    spec = BackendSpec(name="tested", summary="", load="a:b", ops=("linear", "conv2d"))
    made: dict[str, Order] = {}

    def make(kind: str, **changes: Any) -> Order:
        parameters: Mapping[str, Any] = PARAMETERS | changes
        key = f"{kind}{sorted(parameters.items())}"
        if key not in made:
            parts = {"model": "models", "dataset": "datasets", "method": "methods", "allocator": "allocators"}
            entries = {part: installed.find(table, parameters[part])[0] for part, table in parts.items()}
            backend = Entry(spec, PluginInfo(name="tested"), Source("a"))
            oracle = folder / f"{len(made)}.pt"
            made[key] = Order(kind, parameters, entries | {"backend": backend}, oracle, key)
            KINDS[kind].write_oracle(made[key], oracle)
        return made[key]

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_an_honest_backend_is_right_before_during_and_after(order: MakeOrder, kind: str) -> None:
    job = KINDS[kind].make(order(kind), HonestBackend())
    found = job.verify()
    assert found.ok, found.reason
    job.prepare(PARAMETERS)
    for _ in range(3):
        job.run()
        assert job.inspect().ok
    assert job.recheck().ok
    assert job.note == "1 of 1 pruned layers sparse", "first and last layer stay dense"


@pytest.mark.parametrize("kind", KINDS)
def test_the_dense_model_is_right(order: MakeOrder, kind: str) -> None:
    job = KINDS[kind].make(order(kind), Dense())
    assert job.verify().ok
    job.prepare(PARAMETERS)
    job.run()
    assert job.inspect().ok
    assert job.recheck().ok


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("kernel", "reason"),
    [
        (WrongForward, "first "),
        (WrongGradInput, "first gradients, tensor"),
        (WrongGradValues, "first gradients, tensor"),
        (OneWrongValue, "first gradients, tensor"),
        (SlightlyWrongGradient, "first gradients, tensor"),
        (StaleValues, "second "),
        (StaleGradient, "second gradients, tensor"),
        (Unwritten, "first "),
    ],
)
def test_one_mistake_in_one_layer_is_found(order: MakeOrder, kind: str, kernel: Any, reason: str) -> None:
    found = KINDS[kind].make(order(kind), HonestBackend(kernel)).verify()
    assert not found.ok
    assert (found.reason or "").startswith(reason)


@pytest.mark.parametrize("kind", KINDS)
def test_a_backend_that_gets_wrong_later_is_found_after_the_last_sample(order: MakeOrder, kind: str) -> None:
    class Drifts(HonestKernel):
        wrong = False

        def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
            return super().forward(x, bias) * (1.5 if Drifts.wrong else 1)

    job = KINDS[kind].make(order(kind), HonestBackend(Drifts))
    assert job.verify().ok
    job.prepare(PARAMETERS)
    job.run()
    Drifts.wrong = True
    assert not job.recheck().ok
    if kind == "inference":
        job.run()
        assert not job.inspect().ok


def test_a_step_is_split_into_its_parts_and_changes_the_weights(order: MakeOrder) -> None:
    job = training.make(order("training"), HonestBackend())
    job.verify()
    job.prepare(PARAMETERS)
    before = [parameter.detach().clone() for parameter in job.model.parameters()]
    job.run()
    splits, metrics = job.scores()
    assert {"forward", "backward", "optimizer"} <= splits.keys()
    assert metrics == {}
    moved = [not torch.equal(a, b) for a, b in zip(before, job.model.parameters(), strict=True)]
    assert all(moved)
    job.restore()
    assert all(torch.equal(a, b) for a, b in zip(before, job.model.parameters(), strict=True))


def test_the_optimizer_is_the_one_that_the_case_asks_for(order: MakeOrder) -> None:
    job = training.make(order("training"), Dense())
    for given, wanted in (
        ({}, (training.STEP_LR, 0.9, 0)),
        ({"lr": 0.5, "momentum": 0.0, "weight_decay": 0.1}, (0.5, 0.0, 0.1)),
    ):
        job.prepare(PARAMETERS | given)
        (group,) = job.runner.optimizer.param_groups
        assert (group["lr"], group["momentum"], group["weight_decay"]) == wanted
    job.prepare(PARAMETERS | {"nesterov": True})
    assert job.runner.optimizer.param_groups[0]["nesterov"] is True
    job.prepare(PARAMETERS | {"optimizer": "adamw"})
    assert type(job.runner.optimizer) is torch.optim.AdamW


def test_a_whole_training_reports_its_accuracy_and_is_the_same_for_all(order: MakeOrder) -> None:
    parameters = {"epochs": 1, "batch": 64, "lr": 0.1}
    results = []
    for backend in (Dense(), HonestBackend()):
        job = training.make(order("training", **parameters), backend)
        assert job.verify().ok
        job.prepare(PARAMETERS | parameters)
        job.run()
        results.append(job.scores()[1])
        assert job.recheck().ok
    dense, sparse = results
    assert dense.keys() >= {"accuracy", "validation_accuracy", "loss", "steps", "training_seconds"}
    assert dense["steps"] == sparse["steps"] >= 10
    assert dense["accuracy"] > 0.3
    assert sparse["loss"] == pytest.approx(dense["loss"], rel=0.02)


def test_pruned_weights_of_the_dense_model_stay_zero_while_it_trains(order: MakeOrder) -> None:
    job = training.make(order("training"), Dense())
    job.prepare(PARAMETERS | {"lr": 0.1, "weight_decay": 0.1})
    for _ in range(3):
        job.run()
    mask = job.subject.masks["fc2.weight"]
    weight = job.model.fc2.weight
    assert 0 < int(mask.sum()) < mask.numel()
    assert bool((weight[~mask] == 0).all())


@pytest.mark.parametrize("layout", ["nchw", "channels-last"])
def test_the_dense_baseline_says_its_layout_and_keeps_it(
    order: MakeOrder, layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The faster of two, which here is made up; the choice of the first block serves the others."""
    asked: list[list[str]] = []

    def race(runs: Mapping[str, Callable[[], object]], *_: object) -> dict[str, float]:
        asked.append([*runs])
        for run in runs.values():
            run()
        return {name: 1.0 if name == layout else 2.0 for name in runs}

    monkeypatch.setattr("sparsebench.harness.cases.models.race", race)
    parameters = {"model": "lenet", "dataset": "noise", "batch": 2}
    own = order("inference", **parameters)
    own = replace(own, oracle=tmp_path / own.oracle.name)
    own.oracle.write_bytes(order("inference", **parameters).oracle.read_bytes())
    for _ in range(2):
        job = inference.make(own, Dense())
        assert job.verify().ok
        job.prepare(PARAMETERS | parameters)
        job.run()
        assert job.inspect().ok
        assert job.recheck().ok
        assert job.note == {"nchw": "NCHW"}.get(layout, layout)
        wanted = torch.channels_last if layout == "channels-last" else torch.contiguous_format
        assert job.inputs.is_contiguous(memory_format=wanted)
    assert asked == [["nchw", "channels-last"]]


def test_a_backend_that_can_do_no_layer_says_why(order: MakeOrder) -> None:
    class Refuses(HonestBackend):
        def unsupported(self, problem: Problem) -> str | None:
            return "not on a Monday"

    for kind, module in KINDS.items():
        assert case_kind(kind) is module
        reason = module.unsupported(order(kind), Refuses())
        assert reason is not None
        assert reason.startswith("it can do no sparse layer of mlp: ")
        assert "not on a Monday" in reason
        with pytest.raises(UnsupportedError):
            module.make(order(kind), Refuses())
        assert module.unsupported(order(kind), HonestBackend()) is None
        assert module.unsupported(order(kind), Dense()) is None


def test_a_data_set_that_is_not_here_is_told_before_anything_is_built(
    installed: Registry, order: MakeOrder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARSEBENCH_DATA", str(tmp_path))
    monkeypatch.delenv("SPARSEBENCH_DOWNLOAD", raising=False)
    mine = order("inference")
    far = replace(mine, entries=dict(mine.entries) | {"dataset": installed.datasets["mnist"]})
    with pytest.raises(DatasetMissing):
        inference.unsupported(far, HonestBackend())


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_of_an_order_is_the_same_everywhere(order: MakeOrder, kind: str) -> None:
    states = [KINDS[kind].make(order(kind), Dense()).model.state_dict() for _ in range(2)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    torch.manual_seed(12345)
    other = KINDS[kind].make(order(kind), Dense()).model.state_dict()
    assert all(torch.equal(states[0][name], other[name]) for name in other), "whatever the random state is"
