"""GMP: the cubic curve is met exactly at every update; masks only shrink, or let weights return as they were."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparsebench.builtin.methods._gmp import GMP
from sparsebench.builtin.methods._schedule import cubic
from sparsebench.errors import BudgetError, UsageError
from sparsebench.pruning.context import Context
from sparsebench.pruning.contract import Event, Update
from sparsebench.pruning.host import Host


def test_the_curve_is_exact_at_its_ends_and_rises() -> None:
    for initial, final in ((0.05, 0.95), (0.0, 0.9), (0.3, 0.3), (0.05, 0.1)):
        values = [cubic(place / 100, initial, final) for place in range(101)]
        assert values[0] == pytest.approx(initial, abs=1e-15)
        assert values[-1] == final
        assert values == sorted(values)
        assert cubic(-1, initial, final) == values[0]
        assert cubic(2, initial, final) == final
    # the recipe of SparseProp's ResNet-18, section 4.2.2: every ten epochs from 5 to 95 %
    rounded = [round(100 * cubic(step / 7, 0.05, 0.95), 1) for step in range(8)]
    assert rounded == [5.0, 38.3, 62.2, 78.2, 87.9, 92.9, 94.7, 95.0]


def schedule(host: Host, steps: int) -> dict[int, float]:
    host.ctx.epochs, host.ctx.steps_per_epoch = 1, steps
    return GMP.schedule(host.ctx)


@pytest.mark.parametrize("options", ["", "@regrow=true"])
@pytest.mark.parametrize("allocator", ["global", "uniform", "erk"])
def test_the_measured_sparsity_is_that_of_the_schedule(
    allocator: str, options: str, host_of: Callable[..., Host], drive: Callable[..., Host]
) -> None:
    host, trace = host_of(f"gmp{options}", 0.9, allocator), []
    drive(host, 40, look=lambda: trace.append((host.sparsity_now, host.updates)))
    planned = schedule(host, 40)
    assert list(planned) == sorted(planned)
    assert list(planned.values()) == sorted(planned.values())
    assert (min(planned), max(planned)) == (4, 28)
    assert planned[28] == 0.9
    assert host.updates == len(planned) == 21
    now = 0.0
    for step, (measured, _) in enumerate(trace):
        now = planned.get(step, now)
        budget = host.ctx.budgets(now)
        total = sum(mask.numel() for mask in host.masks.values())
        assert measured == pytest.approx(1 - budget.total / total, abs=1e-12)
    assert [b - a for (_, a), (_, b) in pairwise(trace)] == [int(step in planned) for step in range(1, 40)]


@pytest.mark.parametrize("options", ["", "@regrow=true", "@updates=1", "@updates=3,initial=0,begin=0,end=1"])
@pytest.mark.parametrize("allocator", ["global", "uniform", "erk"])
def test_without_training_it_ends_as_one_shot_magnitude(
    allocator: str,
    options: str,
    host_of: Callable[..., Host],
    drive: Callable[..., Host],
    net: Callable[..., nn.Sequential],
) -> None:
    gradual, shot = (
        drive(host_of(name, 0.8, allocator, model=net(tied=True)), 12, lr=0.0)
        for name in (f"gmp{options}", "magnitude")
    )
    assert all(torch.equal(gradual.masks[name], shot.masks[name]) for name in shot.masks)
    states = gradual.state(), shot.state()
    assert all(torch.equal(states[0][name], states[1][name]) for name in shot.masks)


def test_masks_only_shrink_in_training(host_of: Callable[..., Host], drive: Callable[..., Host]) -> None:
    host, seen = host_of("gmp", 0.9), []
    drive(host, 40, lr=0.3, look=lambda: seen.append(dict(host.masks)))
    assert all(bool((loose[name] | ~tight[name]).all()) for loose, tight in pairwise(seen) for name in loose)


class ByMagnitudeAlone(GMP):
    """The fault: a kept weight that has become 0 ties with the masked ones, and may lose to them."""

    def _update(self, ctx: Context, sparsity: float) -> Update:
        return Update(masks=ctx.select({n: w.abs() for n, w in ctx.prunable.items()}, sparsity), sparsity=sparsity)


def check_shrinks_where_weights_are_zero(host: Host) -> None:
    host.begin(1, 10)
    for step in sorted(schedule(host, 10)):
        before = dict(host.masks)
        host.ctx.step = step
        host.event(Event.STEP_BEGIN)
        assert all(bool((before[name] | ~mask).all()) for name, mask in host.masks.items())
        with torch.no_grad():
            for name in host.masks:
                host.model.get_parameter(name).flatten()[::2] = 0


def test_masks_only_shrink_where_kept_weights_are_zero(host_of: Callable[..., Host]) -> None:
    options = {"name": "gmp@updates=4", "sparsity": 0.8, "allocator": "uniform"}
    check_shrinks_where_weights_are_zero(host_of(**options))
    with pytest.raises(AssertionError):
        check_shrinks_where_weights_are_zero(host_of(**options, method=ByMagnitudeAlone()))


def weights_after_two_updates(host: Host, values: Tensor) -> tuple[Tensor, Tensor]:
    """The first layer's weights after an update, all kept ones then made small, and another update; and its mask."""
    weight = host.model.get_parameter("0.weight")
    with torch.no_grad():
        weight.copy_(values)
    host.begin(1, 10)
    for step in sorted(schedule(host, 10)):
        host.ctx.step = step
        host.event(Event.STEP_BEGIN)
        found = weight.detach().clone()
        with torch.no_grad():
            weight.mul_(0.001)
    return found, host.masks["0.weight"]


def test_weights_return_with_the_value_they_were_pruned_with(host_of: Callable[..., Host]) -> None:
    values = torch.arange(1.0, 161.0).reshape(20, 8)
    only = {"exclude": ["3", "6", "9"]}
    found, mask = weights_after_two_updates(host_of("gmp@updates=1,initial=0.5,regrow=true", 0.75, **only), values)
    assert sorted(found[mask].tolist()) == list(range(41, 81))  # the largest of those that were pruned first
    assert torch.equal(found, values * mask)
    found, mask = weights_after_two_updates(host_of("gmp@updates=1,initial=0.5", 0.75, **only), values)
    assert sorted(values[mask].tolist()) == list(range(121, 161))


def test_what_returns_in_training_is_what_went(host_of: Callable[..., Host], drive: Callable[..., Host]) -> None:
    host = host_of("gmp@regrow=true", 0.9)
    pruned: dict[str, Tensor] = {}
    last: dict[str, Any] = {"masks": {}, "weights": {}}
    returned = 0

    def look() -> None:
        nonlocal returned
        for name, mask in host.masks.items():
            weight = host.ctx.prunable[name].clone()
            if name in last["masks"]:
                old = last["masks"][name]
                back, gone = mask & ~old, old & ~mask
                returned += int(back.sum())
                assert torch.equal(weight[back], pruned[name][back])
                pruned[name][gone] = last["weights"][name][gone]
            else:
                pruned[name] = weight
            last["masks"][name] = mask
        last["weights"] = {}

    original = host.step_end

    def step_end() -> None:
        original()
        last["weights"] = {name: weight.clone() for name, weight in host.ctx.prunable.items()}

    host.step_end = step_end  # type: ignore[method-assign]
    drive(host, 60, lr=0.3, look=look)
    assert returned > 20


@pytest.mark.parametrize(
    "options", ["", "@regrow=true", "@begin=0,end=1", "@begin=0.99,end=1", "@updates=1", "@updates=100"]
)
@pytest.mark.parametrize("sparsity", [0.02, 0.9])
def test_the_last_update_lands_on_the_target_however_short_the_training(
    options: str, sparsity: float, host_of: Callable[..., Host]
) -> None:
    for steps in range(1, 31):
        host = host_of(f"gmp{options}", sparsity, strict=False)
        host.begin(1, steps)
        planned = schedule(host, steps)
        assert list(planned.values())[-1] == sparsity
        assert list(planned) == sorted(planned)
        assert 0 <= min(planned) <= max(planned) < steps
        for step in range(steps):
            host.ctx.step = step
            host.event(Event.STEP_BEGIN)
        host.finish()
        assert host.updates == len(planned)


BAD = ["begin=0.5,end=0.5", "begin=0.6,end=0.5", "begin=-0.1", "end=1.1", "begin=nan", "end=nan",
       "initial=1", "initial=-0.1", "initial=nan", "updates=0", "updates=-1"]  # fmt: skip


@pytest.mark.parametrize("options", BAD)
def test_a_schedule_that_cannot_be_is_an_error_before_training(options: str, host_of: Callable[..., Host]) -> None:
    with pytest.raises(UsageError, match="gmp"):
        host_of(f"gmp@{options}").begin(1, 10)


def test_a_budget_on_the_way_that_cannot_be_is_one_too(host_of: Callable[..., Host]) -> None:
    with pytest.raises(BudgetError, match=r"nm:2:4 has the sparsity 0\.5 and no other"):
        host_of("gmp", 0.5, "nm:2:4", exclude=["9"]).begin(1, 10)
