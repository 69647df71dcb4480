"""Lottery tickets: densities fall by a fifth, survivors go back to the snapshot bit for bit, and train from there."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from sparsebench.builtin.methods._lottery import Lottery
from sparsebench.errors import BudgetError, InvariantError, UsageError
from sparsebench.plugin import Event, Update
from sparsebench.pruning.host import Host
from sparsebench.registry import load_registry
from sparsebench.training.data import Examples, Splits
from sparsebench.training.loop import TrainResult, train
from sparsebench.training.recipe import Recipe, learning_rate

FAULT = (AssertionError, InvariantError)
EPOCHS, PER_EPOCH = 4, 4
STEPS = EPOCHS * PER_EPOCH
TARGET = 0.7
Made = Callable[[], Any]


class Moment(NamedTuple):
    """What there was before the method was asked."""

    round: int
    step: int
    rate: float
    masks: dict[str, Tensor]
    state: dict[str, Tensor]
    slots: dict[str, Tensor]


class Watch:
    """The method inside, with all that was there at its events."""

    def __init__(self, method: Any) -> None:
        self.method, self.seen = method, {event: [] for event in Event}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.method, name)

    def on_event(self, event: Event, ctx: Any) -> Update | None:
        slots = {name: ctx.optimizer_slots(name).get("momentum_buffer", torch.zeros(())) for name in ctx.masks}
        rate = ctx._host.optimizer.param_groups[0]["lr"]
        self.seen[event].append(Moment(ctx.round, ctx.step, rate, dict(ctx.masks), ctx.state(), slots))
        return self.method.on_event(event, ctx)

    def begun(self) -> list[Moment]:
        """The beginnings of all rounds, as they are after rewinding, before the first step."""
        epochs = self.seen[Event.EPOCH_BEGIN]
        return [epochs[0], *(b for a, b in pairwise(epochs) if b.round > a.round)]

    def ended(self) -> list[Moment]:
        """What each round came to."""
        return [moment for moment in self.seen[Event.STEP_END] if moment.step == STEPS]


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Dropout(0.2), nn.Linear(24, 3))


def data() -> Splits:
    draw = torch.Generator().manual_seed(0)
    parts = [Examples(torch.randn(n, 8, generator=draw), torch.randint(3, (n,), generator=draw)) for n in (64, 16, 16)]
    return Splits(*parts)


RECIPE = Recipe(epochs=EPOCHS, batch=16, lr=0.1)


def host_for(make: Made, sparsity: float, allocator: str, **options: Any) -> Host:
    spec, registry = load_registry().methods["lottery"].spec, load_registry()
    return Host(net(), make(), registry.create("allocators", allocator), sparsity=sparsity, name="lottery",
                needs=spec.needs, parameters={**spec.parameters, **options}, strict=True)  # fmt: skip


def trained(
    make: Made, sparsity: float = TARGET, allocator: str = "global", recipe: Recipe = RECIPE, **options: Any
) -> tuple[Watch, Host, TrainResult]:
    host = host_for(lambda: Watch(make()), sparsity, allocator, **options)
    result = train(host.model, data(), recipe, host=host)
    return host.method, host, result


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def masked(state: dict[str, Tensor], masks: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor * masks[name] if name in masks else tensor for name, tensor in state.items()}


def densities_fall_by_the_rate(make: Made, rate: float, allocator: str) -> None:
    """(1 - rate)^round of the weights within one a layer, in nested masks, to exactly the target."""
    watch, host, _ = trained(make, allocator=allocator, rate=rate)
    masks = [moment.masks for moment in watch.begun()]
    sizes = {name: mask.numel() for name, mask in masks[0].items()}
    assert len(masks) == next(i for i in range(99) if (1 - rate) ** i <= 1 - TARGET + 1e-9) + 1
    for index, now in enumerate(masks[:-1]):
        kept = sum(int(mask.sum()) for mask in now.values())
        assert abs(kept - (1 - rate) ** index * sum(sizes.values())) <= (0.5 if allocator == "global" else 1.0)
    assert all(not bool((b[name] & ~a[name]).any()) for a, b in pairwise(masks) for name in sizes)
    assert same(host.masks, masks[-1])
    assert host.ctx.budgets().broken(host.masks) is None
    if allocator == "global":
        assert sum(int(mask.sum()) for mask in host.masks.values()) == round((1 - TARGET) * sum(sizes.values()))


class OfAllWeights(Lottery):
    @staticmethod
    def sparsities(ctx: Any) -> list[float]:
        planned = Lottery.sparsities(ctx)
        return [min(ctx.parameters["rate"] * (i + 1), ctx.sparsity) for i in range(len(planned) - 1)] + planned[-1:]


class StartsAnew(Lottery):
    """Ranks all weights by chance: masks of rounds have nothing to do with one another."""

    def on_event(self, event: Event, ctx: Any) -> Update | None:
        update = super().on_event(event, ctx)
        if update is None:
            return None
        scores = {name: torch.rand(mask.shape, generator=ctx.generator) for name, mask in ctx.masks.items()}
        return update._replace(masks=ctx.select(scores, update.sparsity))


@pytest.mark.parametrize("allocator", ["global", "erk"])
@pytest.mark.parametrize("rate", [0.2, 0.5, 0.9])
def test_densities_fall_by_the_rate(rate: float, allocator: str) -> None:
    densities_fall_by_the_rate(Lottery, rate, allocator)


@pytest.mark.parametrize("broken", [OfAllWeights, StartsAnew])
def test_other_densities_are_found(broken: Made) -> None:
    with pytest.raises(FAULT):
        densities_fall_by_the_rate(broken, 0.2, "global")


def survivors_go_back(make: Made, rewind_at: float, place: int) -> None:
    """Every round begins as the step `place` of the first did, but for what is pruned, and prunes by what the last
    one came to."""
    watch, _, _ = trained(make, rewind_at=rewind_at)
    early = watch.seen[Event.STEP_BEGIN][place]
    assert (early.round, early.step) == (0, place)
    for ended, begun in zip(watch.ended(), watch.begun()[1:], strict=False):
        assert begun.step == place
        assert same(begun.state, masked(early.state, begun.masks))
        if place:
            assert same(begun.slots, masked(early.slots, begun.masks))
            assert any(bool(slot.any()) for slot in begun.slots.values())
        sizes = torch.cat([ended.state[name][mask].abs() for name, mask in ended.masks.items()])
        flat = torch.cat([begun.masks[name][mask] for name, mask in ended.masks.items()])
        assert sizes[flat].min() >= sizes[~flat].max()
    assert len(watch.begun()) == 7
    assert len(watch.ended()) == 7


class ByTheRewound(Lottery):
    """Prunes by the weights that it goes back to."""

    def on_event(self, event: Event, ctx: Any) -> Update | None:
        update = super().on_event(event, ctx)
        if update is None:
            return None
        early = ctx.snapshot_state()
        scores = {name: torch.where(mask, early[name].abs(), -1.0) for name, mask in ctx.masks.items()}
        return update._replace(masks=ctx.select(scores, update.sparsity))


class NeverGoesBack(Lottery):
    def on_event(self, event: Event, ctx: Any) -> Update | None:
        update = super().on_event(event, ctx)
        ctx._host.pending_restore = None
        return update


class ForgetsMomentum(Lottery):
    def on_event(self, event: Event, ctx: Any) -> Update | None:
        update = super().on_event(event, ctx)
        return None if update is None else update._replace(reset="all")


@pytest.mark.parametrize(("rewind_at", "place"), [(0.0, 0), (0.05, 1), (0.4, 6), (0.99, 15)])
def test_survivors_go_back_to_the_snapshot(rewind_at: float, place: int) -> None:
    survivors_go_back(Lottery, rewind_at, place)


@pytest.mark.parametrize("broken", [ByTheRewound, NeverGoesBack, ForgetsMomentum])
def test_survivors_elsewhere_are_found(broken: Made) -> None:
    with pytest.raises(FAULT):
        survivors_go_back(broken, 0.4, 6)


def rounds_are_plain_trainings(make: Made) -> None:
    """Bit for bit, with dropout: the first is that of the dense model; with rewind_at=0 the others are trainings of
    the initial weights with their masks."""
    watch, _, result = trained(make, rewind_at=0.0)
    for begun, ended in zip(watch.begun(), watch.ended(), strict=True):
        model = net()
        plain = train(model, data(), RECIPE, masks=begun.masks)
        assert same(ended.state, model.state_dict())
        marks = result.marks[EPOCHS * ended.round : EPOCHS * (ended.round + 1)]
        assert [m.validation_accuracy for m in marks] == [m.validation_accuracy for m in plain.marks]
    assert result.steps == 7 * STEPS


class TouchesTheFirst(Lottery):
    def on_event(self, event: Event, ctx: Any) -> Update | None:
        if event is Event.STEP_BEGIN and ctx.round == 0 and ctx.step == 3:
            return Update(weights={name: 0.99 * weight for name, weight in ctx.prunable.items()}, sparsity=0.0)
        return super().on_event(event, ctx)


@pytest.mark.parametrize(("make", "right"), [(Lottery, True), (TouchesTheFirst, False), (NeverGoesBack, False)])
def test_rounds_are_plain_trainings(make: Made, right: bool) -> None:
    if right:
        rounds_are_plain_trainings(make)
        return
    with pytest.raises(FAULT):
        rounds_are_plain_trainings(make)


def goes_on_with_an_earlier_rate(make: Made) -> None:
    """With rewind=rate weights and momentum stay what they were, but for what is pruned; the rates come again."""
    watch, _, _ = trained(make, rewind="rate", rewind_at=0.5)
    for ended, begun in zip(watch.ended(), watch.begun()[1:], strict=False):
        assert begun.step == STEPS // 2
        assert same(begun.state, masked(ended.state, begun.masks))
        assert same(begun.slots, masked(ended.slots, begun.masks))
    for moment in watch.seen[Event.STEP_END]:
        assert moment.rate == learning_rate(moment.step - 1, STEPS, RECIPE.lr)
    assert len(watch.seen[Event.STEP_END]) == STEPS + 6 * STEPS // 2


class GoesBackAllTheSame(Lottery):
    def on_event(self, event: Event, ctx: Any) -> Update | None:
        update = super().on_event(event, ctx)
        if update is not None:
            ctx.restore()
        return update


def test_the_rate_alone_can_be_rewound() -> None:
    goes_on_with_an_earlier_rate(Lottery)
    for broken in (GoesBackAllTheSame, NeverGoesBack):
        with pytest.raises(FAULT):
            goes_on_with_an_earlier_rate(broken)


@pytest.mark.parametrize("rewind", ["weights", "rate"])
def test_without_training_it_is_one_shot(rewind: str) -> None:
    """With a learning rate of 0 all rounds together keep the largest weights."""
    _, host, _ = trained(Lottery, 0.5, recipe=Recipe(epochs=1, batch=16, lr=0.0), rewind=rewind)
    model = net()
    sizes = torch.cat([model.get_parameter(name).detach().abs().flatten() for name in host.masks])
    kept = torch.cat([mask.flatten() for mask in host.masks.values()])
    assert int(kept.sum()) == len(kept) // 2
    assert sizes[kept].min() >= sizes[~kept].max()


def test_without_a_sparsity_it_is_one_training() -> None:
    watch, host, _ = trained(Lottery, sparsity=0.0)
    model = net()
    train(model, data(), RECIPE)
    assert same(host.state(), model.state_dict())
    assert len(watch.ended()) == 1
    assert not host.snapshots


BAD = [
    ("rate", 0.0),
    ("rate", 1.0),
    ("rate", float("nan")),
    ("rewind", "both"),
    ("rewind_at", -0.1),
    ("rewind_at", 1.0),
]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_parameters_that_cannot_be_are_an_error_before_training(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"lottery: {name} = .*write"):
        host_for(Lottery, TARGET, "global", **{name: value}).begin(1, 10)


def test_what_cannot_be_is_an_error_before_training() -> None:
    with pytest.raises(BudgetError, match="epochs above 0"):
        host_for(Lottery, TARGET, "global").begin()
    with pytest.raises(BudgetError, match="no other"):
        host_for(Lottery, 0.5, "nm:2:4").begin(1, 10)
