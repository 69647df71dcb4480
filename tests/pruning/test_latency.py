"""The table of times: what it says of profiles, that it falls, and that it is read off models that take known times."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sparsebench.errors import BudgetError, InvariantError
from sparsebench.nn.layer import SparseLayer
from sparsebench.pruning import latency, stopwatch
from sparsebench.pruning.latency import LATENCY_LEVELS, LatencyTable, measure_latency, on_backend
from sparsebench.pruning.masks import top_k_mask
from sparsebench.pruning.stopwatch import Probed
from sparsebench.testing.honest import HonestBackend, HonestKernel

TABLE = LatencyTable((0.0, 0.4, 0.8), {"a": (3.0, 3.0, 1.0), "b": (2.0, 1.0, 0.5)}, rest=1.0, dense=6.0)
Falling = Callable[[Sequence[float]], tuple[float, ...]]


def test_the_levels_are_dense_and_densities_that_fall_by_the_same_factor() -> None:
    densities = [1 - level for level in LATENCY_LEVELS]
    assert (densities[0], densities[1], densities[-1]) == (1.0, pytest.approx(0.6), pytest.approx(0.01))
    assert 20 <= len(densities) <= 24
    assert np.allclose(np.diff(np.log(densities[1:])), np.log(densities[2] / densities[1]))


@pytest.mark.parametrize(
    ("shares", "total"),
    [
        ({}, 6.0),
        ({"a": 0.4, "b": 0.4}, 5.0),
        ({"a": 0.8, "b": 0.8}, 2.5),
        ({"a": 0.6}, 5.0),
        ({"b": 0.2}, 6.0),
        ({"a": 0.99, "b": 0.8}, 2.5),
    ],
    ids=["dense", "first", "last", "between", "before the first level it is dense", "beyond the last"],
)
def test_a_profile_takes_the_rest_and_its_layers(shares: dict[str, float], total: float) -> None:
    assert TABLE.total(shares) == pytest.approx(total)
    assert TABLE.speedup(shares) == pytest.approx(6.0 / total)


def test_a_layer_that_is_no_faster_than_dense_is_not_worth_its_kernel() -> None:
    assert [TABLE.is_worth("a", share) for share in (0.0, 0.4, 0.5, 0.8)] == [False, False, True, True]


def test_the_budget_of_a_speedup_is_what_the_rest_leaves() -> None:
    assert TABLE.budget(2.0) == 2.0
    assert TABLE.budget(12.0) < 0


def test_what_cannot_be_reached_says_the_best_and_why() -> None:
    TABLE.check(2.4, {"a": 0.8, "b": 0.8}, "mine")
    with pytest.raises(
        BudgetError, match=r"a speedup of 2\.5 cannot be reached: mine comes to 2\.40 .*dense 6 ms.* 1 ms"
    ):
        TABLE.check(2.5, {"a": 0.8, "b": 0.8}, "mine")


def test_it_is_the_same_after_a_file() -> None:
    assert LatencyTable.from_json(json.loads(json.dumps(TABLE.to_json()))) == TABLE


# what is measured is made to fall


def is_nearest_falling(falling: Falling) -> None:
    """Never rises, never above dense, has the mean of what was measured, and no other such sequence is nearer."""
    draw = np.random.default_rng(0)
    for _ in range(50):
        times = np.concatenate([[9.0], np.linspace(5, 1, 8) + draw.normal(0, 0.8, 8)])
        made = np.array(falling(list(times)))
        assert made[0] == 9
        assert np.all(np.diff(made) <= 1e-12)
        assert made[1:].mean() == pytest.approx(times[1:].mean())
        distance = float(((made - times) ** 2).sum())
        for _ in range(50):
            other = np.sort(made[1:] + draw.normal(0, 0.1, 8))[::-1]
            assert distance <= float(((other - times[1:]) ** 2).sum()) + 1e-12
    assert falling([2.0, 3.0, 1.0]) == (2.0, 2.0, 1.0)


def least_so_far(times: Sequence[float]) -> tuple[float, ...]:
    """Trusts every lucky measurement."""
    return (times[0], *np.minimum.accumulate(np.minimum(times[0], times[1:])))


def as_measured(times: Sequence[float]) -> tuple[float, ...]:
    return tuple(times)


def test_times_fall_as_near_to_what_was_measured_as_they_can() -> None:
    is_nearest_falling(latency._falling)
    for broken in (least_so_far, as_measured):
        with pytest.raises(AssertionError):
            is_nearest_falling(broken)


# measured on models that take known times


class Clock:
    """A clock that moves when a layer says so."""

    now, dense_before = 0, False

    def __deepcopy__(self, memo: Any) -> Clock:
        return self

    def spend(self, module: Any, *_: Any) -> None:
        """Dense layers take 1000 µs, sparse ones 100 and one for each weight; the rest 70, after a dense layer 90."""
        if isinstance(module, SparseLayer | nn.Linear):
            self.dense_before = isinstance(module, nn.Linear)
            us = 1000 if self.dense_before else 100 + module.nnz
        else:
            us = 90 if self.dense_before else 70
        self.now += 1000 * us


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    made = Clock()
    monkeypatch.setattr(stopwatch, "clock", lambda: made.now)
    monkeypatch.setattr(stopwatch, "warm", lambda run, *_: run() or 1.0)
    monkeypatch.setattr(stopwatch, "loops_for", lambda *_: 2)
    yield made


def net(clock: Clock | None = None) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 50), nn.ReLU(), nn.Linear(50, 20), nn.ReLU(), nn.Linear(20, 4))
    if clock is not None:
        for module in model:
            module.register_forward_hook(clock.spend)
    return model


NAMES = ("0.weight", "2.weight", "4.weight")
X = torch.randn(8, 40, generator=torch.Generator().manual_seed(0))


def reads_what_passes(measure: Callable[..., LatencyTable], clock: Clock) -> None:
    """A layer's times are those that pass in it, the rest those that pass elsewhere."""
    made = measure(net(clock), NAMES, X, HonestBackend(), rounds=2)
    sizes = {"0.weight": 2000, "2.weight": 1000, "4.weight": 80}
    for name, size in sizes.items():
        dense = 1.0 if name == "4.weight" else 1.02  # what comes after it takes longer than after a sparse one
        expected = [min(dense, (100 + max(1, round((1 - level) * size))) / 1000) for level in LATENCY_LEVELS[1:]]
        assert made.layers[name] == pytest.approx((dense, *expected))
    assert made.rest == pytest.approx(0.14)
    assert made.dense == pytest.approx(3.18)
    assert made.total({}) == pytest.approx(made.dense), "the table knows the dense model"


def forgets_the_rest(*args: Any, **more: Any) -> LatencyTable:
    made = measure_latency(*args, **more)
    return LatencyTable(made.sparsities, made.layers, 0.0, made.dense)


def layers_alone(*args: Any, **more: Any) -> LatencyTable:
    """As if each layer were timed by itself: what comes after it is the same whatever it runs on."""
    made = measure_latency(*args, **more)
    layers = {name: (1.0, *times[1:]) for name, times in made.layers.items()}
    return LatencyTable(made.sparsities, layers, made.rest, made.dense)


def test_layers_and_rest_are_read_where_they_pass(clock: Clock) -> None:
    reads_what_passes(measure_latency, clock)
    for broken in (forgets_the_rest, layers_alone):
        with pytest.raises(AssertionError):
            reads_what_passes(broken, clock)


def test_measuring_leaves_the_model_and_the_random_state_as_they_are() -> None:
    model = net().train()
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    made = measure_latency(model, NAMES[:2], X, HonestBackend(), levels=(0.0, 0.5, 0.9), rounds=2)
    assert model.training
    assert [type(module) for module in model[::2]] == [nn.Linear] * 3
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert made.sparsities == (0.0, 0.5, 0.9)
    assert set(made.layers) == set(NAMES[:2])
    assert made.total({}) == pytest.approx(made.dense), "layers and rest come to the whole model"


class Wrong(HonestKernel):
    """Its results are ten times too large."""

    def forward(self, *args: Any, **more: Any) -> Tensor:
        return 10 * super().forward(*args, **more)


def test_a_backend_that_is_wrong_gets_no_table() -> None:
    with pytest.raises(InvariantError, match="logits at a sparsity of"):
        measure_latency(net(), NAMES, X, HonestBackend(Wrong), levels=(0.0, 0.5), rounds=2)


def test_images_are_measured_in_both_layouts_and_handed_on_in_the_better() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.Flatten(), nn.LazyLinear(3))
    x = torch.randn(4, 1, 8, 8)
    model(x)
    names = ("0.weight", "2.weight")
    made = measure_latency(model, names, x, HonestBackend(), levels=(0.0, 0.5), rounds=2)
    assert made.layout in latency.LAYOUTS
    last = LatencyTable((0.0, 0.5), dict.fromkeys(names, (1.0, 0.5)), 1.0, 3.0, "channels-last")
    masks = {name: top_k_mask(model.get_parameter(name).abs(), 10) for name in names}
    seen: list[bool] = []
    sparse = on_backend(model, masks, last, latency.laid_out(x, "channels-last"), HonestBackend())
    assert isinstance(sparse[0], SparseLayer)
    sparse[1].register_forward_hook(
        lambda _, inputs, output: seen.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
    )
    with torch.no_grad():
        sparse.eval()(latency.laid_out(x, "channels-last"))
    assert seen == [True]


def test_layers_that_are_not_worth_it_run_dense() -> None:
    table = LatencyTable((0.0, 0.5), {"0.weight": (1.0, 1.0), "2.weight": (1.0, 0.5)}, 1.0, 3.0)
    model = net()
    masks = {name: top_k_mask(model.get_parameter(name).abs(), 40) for name in NAMES[:2]}
    made = on_backend(model, masks, table, X, HonestBackend())
    assert [isinstance(module, SparseLayer) for module in made[::2]] == [False, True, False]
    assert not any(isinstance(module, SparseLayer) for module in model.modules())


def test_with_one_thread_time_that_others_take_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopwatch.time, "process_time_ns", lambda: 1)
    monkeypatch.setattr(stopwatch.time, "perf_counter_ns", lambda: 2)
    for threads in (1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert stopwatch.clock() == threads


def test_a_layer_that_is_used_twice_counts_twice(clock: Clock) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)
            self.layer.register_forward_hook(clock.spend)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(self.layer(x))

    made = Probed(Twice(), torch.randn(2, 4), ["layer.weight"])
    assert made.inside() == ({"layer.weight": 2.0}, {"layer.weight": 0.0})
    assert made.whole(3) == 2.0
