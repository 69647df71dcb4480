"""Accuracy cases with a speedup as their target: one table for all, promise and result, and what can never be."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch

from sparsebench.errors import InvariantError, UnsupportedError, UsageError
from sparsebench.harness.cases import accuracy, speedup
from sparsebench.harness.cases.base import Order
from sparsebench.pruning.kernels import Kernels
from sparsebench.pruning.latency import LATENCY_LEVELS, LatencyTable, Probed
from sparsebench.pruning.masks import prunable, top_k_mask
from sparsebench.registry import Registry
from sparsebench.testing.honest import HonestBackend, HonestKernel
from sparsebench.training.checkpoints import save_checkpoint

MakeOrder = Callable[..., Order]
Train = Callable[[Order], Any]
ASKED: Mapping[str, Any] = {"sparsity": 0.0, "speedup": 1.5, "backend": "honest", "epochs": 1}


def table(model: Any, names: Any) -> LatencyTable:
    """Half of the time is the middle layer's, and it is in proportion to what is kept."""
    times = (2.0, *(2.0 * min(1.0, 0.1 + 1.2 * (1 - s)) for s in LATENCY_LEVELS[1:]))
    flat = (0.5,) * len(LATENCY_LEVELS)
    return LatencyTable(LATENCY_LEVELS, {name: times if name == "fc2.weight" else flat for name in names}, 1.0, 4.0)


@pytest.fixture(autouse=True)
def made_up(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Nothing is timed: the table is made up and counted, and a race is won by as much as the model has zeros."""
    count: list[int] = []

    def measure(model: Any, names: Any, *_: Any) -> LatencyTable:
        count.append(len(names))
        return table(model, names)

    def contest(runs: Mapping[Any, Probed], rounds: int) -> dict[Any, list[float]]:
        for run in runs.values():
            run.run()
        return {name: [1.0 if name == "sparse" else 1.4 + 0.01 * i for i in range(rounds)] for name in runs}

    monkeypatch.setattr(speedup, "measure_latency", measure)
    monkeypatch.setattr(speedup, "contest", contest)
    return count


@pytest.fixture
def checkpoint(order_of: MakeOrder, trained: Train, tmp_path: Any) -> str:
    job = trained(order_of("dense", sparsity=0.0, epochs=2))
    save_checkpoint(job.model.state_dict(), tmp_path / "dense.safetensors")
    return str(tmp_path / "dense.safetensors")


def metrics_of(job: Any) -> dict[str, float]:
    assert job.inspect().ok
    return job.scores()[1]


def keeps_its_promise(metrics: Mapping[str, float], asked: float = 1.5) -> None:
    assert asked <= metrics["speedup_promised"] < asked + 0.1
    assert metrics["speedup_measured"] == pytest.approx(1.45)
    assert metrics["speedup_low"] < 1.45 < metrics["speedup_high"]


@pytest.mark.parametrize("allocator", ["uniform", "erk", "global", "spdy@inits=3,patience=2"])
def test_a_one_shot_method_comes_to_the_speedup_whatever_the_allocator(
    order_of: MakeOrder, trained: Train, allocator: str
) -> None:
    job = trained(order_of("magnitude", allocator=allocator, **ASKED))
    metrics = metrics_of(job)
    keeps_its_promise(metrics)
    assert 0 < metrics["sparsity"] <= job.host.sparsity + 0.001, "of layers that are left dense nothing is pruned"
    assert job.note.startswith("3 of 3 layers can run on honest")


@pytest.mark.parametrize("allocator", ["uniform", "global", "spdy@inits=3,patience=2"])
def test_a_method_with_a_schedule_ends_at_the_speedup(
    order_of: MakeOrder, trained: Train, checkpoint: str, allocator: str
) -> None:
    job = trained(order_of("gmp", allocator=allocator, checkpoint=checkpoint, **{**ASKED, "epochs": 2}))
    keeps_its_promise(metrics_of(job))


def test_one_table_serves_all_methods_seeds_and_speedups(
    order_of: MakeOrder, trained: Train, made_up: list[int]
) -> None:
    for method, seed, times in (("magnitude", 0, 1.5), ("magnitude", 1, 1.3), ("static", 0, 1.5)):
        trained(order_of(method, **{**ASKED, "seed": seed, "speedup": times}))
    assert made_up == [3]
    trained(order_of("static", **{**ASKED, "batch": 32}))
    assert made_up == [3, 3], "another batch takes another time"


def test_the_reference_has_no_kernels_no_table_and_no_speedup(
    order_of: MakeOrder, trained: Train, made_up: list[int]
) -> None:
    job = trained(order_of("dense", **{**ASKED, "speedup": 1.0}))
    assert not [name for name in metrics_of(job) if name.startswith("speedup")]
    assert made_up == []


@pytest.mark.parametrize("allocator", ["uniform", "spdy@inits=3,patience=2"])
def test_what_cannot_be_reached_is_said_before_anything_is_trained(
    order_of: MakeOrder, trained: Train, allocator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accuracy, "train", lambda *_, **__: pytest.fail("it trains"))
    with pytest.raises(UnsupportedError, match=r"a speedup of 3 cannot be reached: \w+ comes to 1\.\d\d"):
        trained(order_of("magnitude", allocator=allocator, **{**ASKED, "speedup": 3.0}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"allocator": "nm:2:4"}, "groups of 2:4 have one sparsity"),
        ({"backend": "torch-dense"}, "computes dense layers"),
        ({"allocator": "spdy"}, "allocator spdy looks at the weights, and gmp asks for budgets before"),
        ({"allocator": "global"}, "give the case a checkpoint"),
        ({"allocator": "spdy", "speedup": 1.0, "sparsity": 0.5}, "give the case a checkpoint"),
        ({"allocator": "spdy", "method": "magnitude", "epochs": 0}, "give the case a checkpoint"),
    ],
    ids=["groups", "a dense backend", "spdy", "global", "spdy for a sparsity", "untrained"],
)
def test_what_can_never_be_is_said_before_any_work(order_of: MakeOrder, changes: dict[str, Any], words: str) -> None:
    method = changes.get("method", "gmp")
    with pytest.raises(UsageError, match=words):
        accuracy.unsupported(order_of(method, **{**ASKED, **{k: v for k, v in changes.items() if k != "method"}}), None)


def test_looking_whether_it_can_be_done_neither_measures_nor_searches(
    order_of: MakeOrder, checkpoint: str, made_up: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sparsebench.builtin.allocators._spdy import SPDY

    monkeypatch.setattr(SPDY, "_search", lambda *_: pytest.fail("it searches"))
    for method in ("magnitude", "gmp"):
        for target in ({}, {"speedup": 1.0, "sparsity": 0.5}):
            order = order_of(method, allocator="spdy", checkpoint=checkpoint, **{**ASKED, **target})
            assert accuracy.unsupported(order, None) is None
    assert made_up == []


def test_every_method_that_prunes_can_be_looked_at(order_of: MakeOrder, all_installed: Registry) -> None:
    names = [name for name, entry in all_installed.methods.items() if entry.spec.prunes and entry.source.ours]
    assert len(names) > 4
    for name in names:
        order = order_of(name, **ASKED)
        assert accuracy.unsupported(order, None) is None, name


def test_an_interrupted_training_goes_on_with_the_same_profile(
    order_of: MakeOrder, trained: Train, checkpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = order_of("gmp", allocator="spdy@inits=3,patience=2", checkpoint=checkpoint, **{**ASKED, "epochs": 2})
    whole = copy.deepcopy(trained(order).model.state_dict())
    order.state.unlink()

    class Interrupted(Exception):
        pass

    train = accuracy.train

    def stop(epoch: int, *_: Any) -> None:
        if epoch == 1:
            raise Interrupted

    monkeypatch.setattr(accuracy, "train", lambda *args, **more: train(*args, **more, progress=stop))
    job = accuracy.make(order, None)
    with pytest.raises(Interrupted):
        job.run()
    monkeypatch.setattr(accuracy, "train", train)
    job = accuracy.make(order, None)
    job.run()
    assert all(torch.equal(tensor, whole[name]) for name, tensor in job.model.state_dict().items())


class Wrong(HonestKernel):
    """Its results are ten times too large."""

    def forward(self, *args: Any, **more: Any) -> torch.Tensor:
        return 10 * super().forward(*args, **more)


@pytest.mark.parametrize(("kernel", "right"), [(HonestKernel, True), (Wrong, False)])
def test_the_model_that_is_raced_is_right(order_of: MakeOrder, kernel: Any, right: bool) -> None:
    job = accuracy.make(order_of("magnitude", **ASKED), None)
    masks = {name: top_k_mask(weight.abs(), weight.numel() // 10) for name, weight in prunable(job.fresh).items()}
    kernels = Kernels(HonestBackend(kernel), job.batch.inputs)
    if right:
        metrics = speedup.measured(job.fresh, masks, table(job.fresh, list(masks)), kernels, "float32")
        assert metrics["speedup_promised"] == pytest.approx(4 / (2 + 2 * 0.22), rel=0.01)
    else:
        with pytest.raises(InvariantError, match="logits of the timed model"):
            speedup.measured(job.fresh, masks, table(job.fresh, list(masks)), kernels, "float32")
