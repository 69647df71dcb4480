"""A speedup as the target: the least sparsity that comes to it, for any allocator, and when that is found out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparsebench.builtin.allocators._erdos_renyi import ERK
from sparsebench.builtin.allocators._global import Global
from sparsebench.builtin.allocators._nm import FineGrained
from sparsebench.builtin.allocators._uniform import Uniform
from sparsebench.builtin.methods._magnitude import Magnitude
from sparsebench.errors import BudgetError, PluginError, UsageError
from sparsebench.pruning.host import Host
from sparsebench.pruning.latency import LATENCY_LEVELS, LatencyTable
from sparsebench.pruning.target import STEPS, Speedup, check_allocator, check_reachable, overall, sparsity_for

NAMES = ("0.weight", "2.weight", "4.weight", "6.weight")


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(12, 30), nn.ReLU(), nn.Linear(30, 40), nn.ReLU(), nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 5)
    )


def table() -> LatencyTable:
    """A layer takes an overhead and its share of kept weights, the wider ones longer."""
    layers = {
        name: (width, *(width * (0.1 + 1.2 * (1 - s)) for s in LATENCY_LEVELS[1:]))
        for name, width in zip(NAMES, (0.5, 2.0, 2.0, 0.3), strict=True)
    }
    layers = {name: tuple(min(times[0], each) for each in times) for name, times in layers.items()}
    return LatencyTable(LATENCY_LEVELS, layers, 1.0, 5.8)


def ctx_of(allocator: Any, **more: Any) -> Any:
    return Host(net(), Magnitude(), allocator, sparsity=0.0, **more).ctx


def shares_at(allocator: Any, sparsity: float, ctx: Any) -> dict[str, float]:
    """Sparsities as the largest weights of now come out."""
    masks = ctx.budgets(sparsity).select({name: weight.abs() for name, weight in ctx.prunable.items()})
    return {name: 1 - int(mask.sum()) / mask.numel() for name, mask in masks.items()}


Find = Callable[[Speedup, Any, Any], float]


def is_the_least_that_is_enough(find: Find) -> None:
    """It comes to the speedup, and one step less does not."""
    for allocator in (Uniform(), ERK(), Global()):
        for times in (1.05, 1.3, 1.7, 2.0):
            ctx = ctx_of(allocator)
            found = find(Speedup(times, table()), allocator, ctx)
            assert table().speedup(shares_at(allocator, found, ctx)) >= times
            less = round(found * STEPS - 1) / STEPS
            assert table().speedup(shares_at(allocator, less, ctx)) < times


def a_step_short(speedup: Speedup, allocator: Any, ctx: Any) -> float:
    return sparsity_for(speedup, allocator, ctx) - 1 / STEPS


def a_step_more(speedup: Speedup, allocator: Any, ctx: Any) -> float:
    return sparsity_for(speedup, allocator, ctx) + 1 / STEPS


def by_the_wish(speedup: Speedup, allocator: Any, ctx: Any) -> float:
    """Takes every layer to have the overall sparsity."""
    shares = (k / STEPS for k in range(1, STEPS))
    return next(s for s in shares if table().speedup(dict.fromkeys(NAMES, s)) >= speedup.times)


@pytest.mark.parametrize("broken", [a_step_short, a_step_more, by_the_wish], ids=lambda value: value.__name__)
def test_it_is_the_least_sparsity_that_is_enough_and_its_twin_is_not(broken: Find) -> None:
    is_the_least_that_is_enough(sparsity_for)
    with pytest.raises(AssertionError):
        is_the_least_that_is_enough(broken)


@pytest.mark.parametrize("allocator", [Uniform(), ERK(), Global()], ids=lambda value: type(value).__name__)
def test_what_cannot_be_says_the_best_that_can(allocator: Any) -> None:
    ctx = ctx_of(allocator)
    with pytest.raises(
        BudgetError, match=rf"speedup of 9 cannot be reached: {type(allocator).__name__.lower()} comes to"
    ):
        sparsity_for(Speedup(9.0, table()), allocator, ctx)


def test_it_is_known_before_training_but_where_the_trained_weights_decide() -> None:
    for allocator in (Uniform(), ERK()):
        check_reachable(Speedup(1.5, table()), allocator, ctx_of(allocator))
        with pytest.raises(BudgetError, match="cannot be reached"):
            check_reachable(Speedup(9.0, table()), allocator, ctx_of(allocator))
    check_reachable(Speedup(9.0, table()), Global(), ctx_of(Global()))


def test_groups_have_one_speed() -> None:
    with pytest.raises(UsageError, match="groups of 2:4 have one sparsity"):
        check_allocator(FineGrained("2:4"))
    check_allocator(Uniform())


class Solves:
    """Has a solution of its own; `fastest` says what is possible."""

    def __init__(self, shares: Mapping[str, float]) -> None:
        self.shares = shares

    def allocate(self, layers: Any, target: float, ctx: Any) -> dict[str, float]:
        return dict(self.shares)

    def allocate_speedup(self, layers: Any, speedup: Speedup, ctx: Any) -> dict[str, float]:
        return dict(self.shares)

    def fastest(self, layers: Any, speedup: Speedup, ctx: Any) -> dict[str, float]:
        return dict.fromkeys(layers, 0.5)


def test_an_allocator_with_a_solution_of_its_own_is_taken_at_its_word() -> None:
    allocator = Solves({NAMES[0]: 0.0, NAMES[1]: 0.5, NAMES[2]: 0.75, NAMES[3]: 0.0})
    host = Host(net(), Magnitude(), allocator, sparsity=0.0, speedup=Speedup(1.5, table()))
    host.begin()
    host.finish()
    assert host.sparsity == pytest.approx((600 + 900) / (360 + 1200 + 1200 + 150))
    assert int(host.masks[NAMES[2]].sum()) == 300
    with pytest.raises(BudgetError, match="solves comes to"):
        check_reachable(Speedup(3.0, table()), allocator, host.ctx)


def test_a_solution_without_every_layer_is_no_solution() -> None:
    layers: dict[str, Tensor] = dict(net().named_parameters())
    with pytest.raises(PluginError, match="every layer"):
        overall({"0.weight": 0.5}, {name: layers[name] for name in NAMES})


def test_a_late_speedup_is_that_of_the_trained_weights() -> None:
    """Where all weights compete, a layer whose weights have grown keeps more of them."""
    host = Host(net(), Magnitude(), Global(), sparsity=0.0, speedup=Speedup(1.6, table()), late=True)
    host.begin()
    assert host.sparsity == host.ctx.sparsity == 0
    with torch.no_grad():
        host.model[2].weight.mul_(3)
    host.finish()
    shares = {name: 1 - int(mask.sum()) / mask.numel() for name, mask in host.masks.items()}
    assert table().speedup(shares) >= 1.6
    early = Host(net(), Magnitude(), Global(), sparsity=0.0, speedup=Speedup(1.6, table()))
    early.begin()
    assert host.sparsity > early.sparsity > 0
