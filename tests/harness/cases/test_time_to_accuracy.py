"""Seconds to an accuracy: of the model that was asked for alone, in the layout that is faster, on kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch

from sparsebench.harness.cases import time_to_accuracy
from sparsebench.harness.cases.base import Order
from sparsebench.plugin import Update

MakeOrder = Callable[..., Order]
Train = Callable[[Order], Any]


def scores(job: Any) -> dict[str, float]:
    assert job.inspect().ok
    return job.scores()[1]


@pytest.mark.parametrize(("goal", "reached"), [(0.05, True), (1.0, False)])
def test_seconds_to_a_goal_are_there_only_if_it_was_reached(
    order_of: MakeOrder, trained: Train, goal: float, reached: bool
) -> None:
    metrics = scores(trained(order_of("static", "time-to-accuracy", goal=goal, backend="honest")))
    assert ("seconds_to_goal" in metrics) == reached
    if reached:
        assert 0 < metrics["seconds_to_goal"] < metrics["training_seconds"], "after the first of two epochs"


def test_a_model_that_is_still_dense_reaches_no_goal(order_of: MakeOrder, trained: Train) -> None:
    """Pruned after training, it is the model that was asked for at the end and not before."""
    for goal in (0.05, 1.0):
        metrics = scores(trained(order_of("magnitude", "time-to-accuracy", goal=goal, backend="honest")))
        assert metrics.get("seconds_to_goal") == (metrics["training_seconds"] if goal < 0.1 else None)


class NeedsSetup:
    """Prunes once; has nothing to answer with before `setup`."""

    def setup(self, ctx: Any) -> Update:
        self.steps = ctx.steps
        return Update(masks=ctx.select({name: weight.abs() for name, weight in ctx.prunable.items()}))

    def on_event(self, event: Any, ctx: Any) -> None:
        assert ctx.step <= self.steps


@pytest.mark.parametrize("layout", ["nchw", "channels-last"])
@pytest.mark.parametrize(("method", "sparsity"), [("dense", 0.0), (NeedsSetup, 0.5)])
def test_images_are_trained_in_the_layout_that_was_faster(
    order_of: MakeOrder, layout: str, method: Any, sparsity: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A race is made up here, and everybody who takes part does a step."""

    def race(runs: Mapping[str, Callable[[], object]]) -> dict[str, float]:
        for run in runs.values():
            run()
        return {name: 1.0 if name == layout else 2.0 for name in runs}

    monkeypatch.setattr(time_to_accuracy, "race", race)
    images = {"model": "lenet", "dataset": "noise", "epochs": 1, "backend": "honest", "goal": 1.0}
    job = time_to_accuracy.make(order_of(method, "time-to-accuracy", sparsity=sparsity, **images), None)
    before = {name: tensor.clone() for name, tensor in job.fresh.state_dict().items()}
    job.prepare(job.order.parameters)
    assert job.note.endswith({"nchw": "NCHW"}.get(layout, layout))
    assert all(torch.equal(tensor, before[name]) for name, tensor in job.fresh.state_dict().items())
    wanted = torch.channels_last if layout == "channels-last" else torch.contiguous_format
    assert job.first_model().conv2.weight.is_contiguous(memory_format=wanted)
    job.run()
    assert job.inspect().ok
    assert job.scores()[1]["sparsity"] == pytest.approx(sparsity, abs=0.05)


def test_flat_inputs_have_no_layout(order_of: MakeOrder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_to_accuracy, "race", lambda *_: pytest.fail("there is nothing to race"))
    job = time_to_accuracy.make(order_of("static", "time-to-accuracy", goal=0.5, backend="honest"), None)
    job.prepare(job.order.parameters)
    assert job.note == "1 of 3 layers on honest"
