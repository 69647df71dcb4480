"""SET: layers keep their counts; growth is uniform over what is not kept, at 0 and without memory; kept ones go on."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from scipy.stats import chi2
from torch import Tensor, nn

from sparsebench.builtin.methods._set import SET
from sparsebench.errors import BudgetError, InvariantError, UsageError
from sparsebench.pruning.contract import Event, Update
from sparsebench.pruning.host import Host

FAULT = (AssertionError, InvariantError)
STEPS, LAST = 80, 60  # with updates at 0, 5, …, 55


class Kept:
    """Around a method: weights, masks and momentum as they are before each event and after its update."""

    def __init__(self, method: Any) -> None:
        self.method = method
        self.pairs: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self._before: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.method, name)

    def on_event(self, event: Event, ctx: Any) -> Update | None:
        if self._before and event is not Event.GRADS_READY:
            self.pairs.append((self._before, seen(ctx)))  # nothing but the update was in between
        update = self.method.on_event(event, ctx)
        self._before = seen(ctx) if event is Event.STEP_END else {}
        return update


def seen(ctx: Any) -> dict[str, Any]:
    return {
        "step": ctx.step,
        "masks": dict(ctx.masks),
        "weights": {name: weight.clone() for name, weight in ctx.prunable.items()},
        "momentum": {name: ctx.optimizer_slots(name)["momentum_buffer"] for name in ctx.masks},
    }


def changes(host: Host) -> list[tuple[str, Tensor, Tensor, dict[str, Any], dict[str, Any]]]:
    """(layer, old mask, new mask, before, after) of every change of a mask at the end of a step."""
    return [
        (name, before["masks"][name], after["masks"][name], before, after)
        for before, after in host.method.pairs
        for name in before["masks"]
        if not torch.equal(before["masks"][name], after["masks"][name])
    ]


def exchanges_a_falling_share(make: Callable[[], Any], host_of: Any, drive: Any, allocator: str) -> None:
    """Counts of layers never change; the share dropped follows the cosine from `drop`, and the rest stays."""
    host = host_of("set", 0.8, allocator, method=Kept(make()))
    counts: list[dict[str, int]] = []
    drive(host, STEPS, look=lambda: counts.append({name: int(mask.sum()) for name, mask in host.masks.items()}))
    assert all(count == counts[0] for count in counts)
    if allocator != "global":
        assert counts[0] == dict(host.ctx.budgets().layers)
    steps = {before["step"] - 1 for *_, before, _ in changes(host)}
    assert steps <= set(range(0, LAST, 5))
    assert {0, 5, 10, 15} <= steps
    for name, old, new, before, after in changes(host):
        active, step = int(old.sum()), before["step"] - 1
        wanted = int(
            0.15 * (1 + torch.tensor(torch.pi * step / LAST, dtype=torch.float64).cos().item()) * active + 1e-9
        )
        size = before["weights"][name].abs()[old]
        stays = size.argsort(descending=True, stable=True)[: active - wanted]
        kept = old.nonzero()[stays]  # by an ordering, not by the method's selection
        assert bool(new[tuple(kept.T)].all())
        assert int((new & ~old).sum()) == int((old & ~new).sum()) <= wanted
        grown = new & ~old
        for what in ("weights", "momentum"):
            assert not bool(after[what][name][grown].any())
            assert torch.equal(after[what][name][old & new], before[what][name][old & new])


class NeverFalls(SET):
    def share(self, step: int, ctx: Any) -> float:
        return float(ctx.parameters["drop"])


class DropsTheLargest(SET):
    def on_event(self, event: Event, ctx: Any) -> Update | None:
        update = super().on_event(event, ctx)
        if update is None or update.masks is None:
            return update
        masks = dict(update.masks)
        for name, mask in masks.items():
            grown = (mask & ~ctx.masks[name]).nonzero()
            largest = torch.where(ctx.masks[name], ctx.prunable[name].abs(), -1.0).flatten().argsort(descending=True)
            mask = ctx.masks[name].clone()
            mask.view(-1)[largest[: len(grown)]] = False
            mask[tuple(grown.T)] = True
            masks[name] = mask
        return Update(masks=masks)


class GrowsAtSomething(SET):
    def on_event(self, event: Event, ctx: Any) -> Update | None:
        update = super().on_event(event, ctx)
        if update is None or update.masks is None:
            return update
        weights = {n: torch.where(m & ~ctx.masks[n], 0.01, ctx.prunable[n]) for n, m in update.masks.items()}
        return Update(masks=update.masks, weights=weights)


class ForgetsEverything(SET):
    def on_event(self, event: Event, ctx: Any) -> Update | None:
        update = super().on_event(event, ctx)
        return None if update is None else update._replace(reset="all")


class MovesBetweenLayers(SET):
    """Drops in one layer and grows in another: the model's total stays."""

    def on_event(self, event: Event, ctx: Any) -> Update | None:
        if event is not Event.STEP_END or ctx.step != 10:
            return None
        masks = {name: mask.clone() for name, mask in ctx.masks.items()}
        first, second = list(masks)[:2]
        masks[first].view(-1)[masks[first].flatten().nonzero()[0]] = False
        masks[second].view(-1)[(~masks[second]).flatten().nonzero()[0]] = True
        return Update(masks=masks)


@pytest.mark.parametrize("allocator", ["uniform", "erk", "er", "global"])
def test_it_exchanges_a_falling_share(allocator: str, host_of: Callable[..., Host], drive: Callable[..., Host]) -> None:
    exchanges_a_falling_share(SET, host_of, drive, allocator)


@pytest.mark.parametrize(
    "broken", [NeverFalls, DropsTheLargest, GrowsAtSomething, ForgetsEverything, MovesBetweenLayers]
)
def test_a_broken_one_is_found(broken: type[SET], host_of: Callable[..., Host], drive: Callable[..., Host]) -> None:
    with pytest.raises(FAULT):
        exchanges_a_falling_share(broken, host_of, drive, "global")


DRAWS = 10_000  # 10 at once


def grows_uniformly(make: Callable[[], Any], host_of: Any) -> None:
    """From the same state always: by chi-square, each of those not kept is as likely, just dropped or not."""
    torch.manual_seed(0)
    host = host_of("set@drop=0.5", 0.5, "global", method=make(), model=nn.Sequential(nn.Linear(8, 5)), strict=False)
    host.begin(1, STEPS)
    ctx, name = host.ctx, "0.weight"
    ctx.step = 1  # the end of the first
    sizes = torch.where(ctx.masks[name], ctx.prunable[name].abs(), -1.0).flatten()
    others = torch.ones(40, dtype=torch.bool)
    others[sizes.argsort(descending=True)[:10]] = False
    times = torch.zeros(40)
    for _ in range(DRAWS // 10):
        times += host.method.on_event(Event.STEP_END, ctx).masks[name].flatten()
    assert bool((times[~others] == DRAWS // 10).all())
    assert int(times[others].sum()) == DRAWS
    statistic = float(((times[others] - DRAWS / 30) ** 2).sum()) / (DRAWS / 30)
    assert statistic / (1 - 10 / 30) * 29 / 30 < chi2.ppf(0.999, 29)  # 10 of 30 without putting back vary less


class TiesToTheFirst(SET):
    """A few random numbers that tie, and ties that go to the lower index."""

    def growth(self, name: str, ctx: Any) -> Tensor:
        return torch.randint(4, ctx.masks[name].shape, generator=ctx.generator).double()


class NeverTheSame(SET):
    """What was just dropped does not return."""

    def growth(self, name: str, ctx: Any) -> Tensor:
        return torch.where(ctx.masks[name], 0.0, super().growth(name, ctx) + 1)


def test_growth_is_uniform(host_of: Callable[..., Host]) -> None:
    grows_uniformly(SET, host_of)


@pytest.mark.parametrize("broken", [TiesToTheFirst, NeverTheSame])
def test_growth_that_is_not_uniform_is_found(broken: type[SET], host_of: Callable[..., Host]) -> None:
    with pytest.raises(AssertionError):
        grows_uniformly(broken, host_of)


@pytest.mark.parametrize("name", ["set", "rigl"])
@pytest.mark.parametrize("allocator", ["erk", "global"])
def test_without_a_drop_it_is_static_training(
    name: str, allocator: str, host_of: Callable[..., Host], drive: Callable[..., Host]
) -> None:
    """Bit for bit, and from the same mask with a drop too."""
    static = drive(host_of("static", 0.8, allocator, seed=3), 30).state()
    still = drive(host_of(f"{name}@drop=0", 0.8, allocator, seed=3), 30)
    assert still.updates == 1
    assert all(torch.equal(tensor, still.state()[key]) for key, tensor in static.items())
    moved = drive(host_of(name, 0.8, allocator, seed=3), 30)
    assert moved.updates > 1
    assert not all(torch.equal(tensor, moved.state()[key]) for key, tensor in static.items())
    drawn = [host_of(each, 0.8, allocator, seed=3) for each in (name, "static")]
    for host in drawn:
        host.begin(1, 30)
    assert all(torch.equal(mask, drawn[1].masks[key]) for key, mask in drawn[0].masks.items())


@pytest.mark.parametrize("name", ["set", "rigl"])
def test_the_schedule_of_short_and_of_long_trainings(name: str, host_of: Callable[..., Host]) -> None:
    host = host_of(name)
    for steps, expected in [
        (80, range(0, 60, 5)),
        (800, range(0, 600, 30)),
        (32_000, range(0, 24_000, 100)),
        (0, range(0)),
    ]:
        host.begin(1, steps)
        planned = host.method.schedule(host.ctx)
        assert list(planned) == list(expected)
        shares = [host.method.share(step, host.ctx) for step in planned]
        assert all(a > b > 0 for a, b in pairwise(shares))
        assert not shares or shares[0] == 0.3
        assert not shares or host.method.share(expected.stop, host.ctx) == 0
        assert host.method.counts(steps, host.ctx) == {}


@pytest.mark.parametrize("name", ["set", "rigl"])
@pytest.mark.parametrize(
    "option", ["drop=-0.1", "drop=1", "drop=nan", "end=0", "end=1.01", "end=nan", "interval=1", "interval=-5"]
)
def test_parameters_that_cannot_be_are_an_error_before_training(
    name: str, option: str, host_of: Callable[..., Host]
) -> None:
    with pytest.raises(UsageError, match=f"{name}: {option.partition('=')[0]} = .*write"):
        host_of(f"{name}@{option}").begin(1, 10)


@pytest.mark.parametrize("name", ["set", "rigl"])
def test_groups_are_refused(name: str, host_of: Callable[..., Host]) -> None:
    model = nn.Sequential(nn.Linear(8, 20), nn.ReLU(), nn.Linear(20, 3))
    with pytest.raises(BudgetError, match=f"{name} exchanges weights over whole layers"):
        host_of(name, 0.5, "nm:2:4", model=model).begin(1, 10)


@pytest.mark.parametrize("name", ["set", "rigl"])
def test_a_dense_model_is_trained_as_it_is(name: str, host_of: Callable[..., Host], drive: Callable[..., Host]) -> None:
    dense, host = (drive(host_of(each, 0.0), 20) for each in ("dense", name))
    assert all(torch.equal(tensor, host.state()[key]) for key, tensor in dense.state().items())
