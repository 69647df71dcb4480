"""Every named invariant is broken by a small method, or model, and caught by its name; one that is right passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparsebench.errors import InvariantError
from sparsebench.pruning.context import Context
from sparsebench.pruning.contract import Event, Update
from sparsebench.pruning.holding import Holding
from sparsebench.pruning.host import Host
from sparsebench.pruning.invariants import check_weights, pure_evaluation, untouched
from sparsebench.training.data import Splits

Caught = Callable[[Host, Splits], str]


def smallest_first(ctx: Context, sparsity: float | None = None) -> dict[str, Tensor]:
    return ctx.select({name: weight.abs() for name, weight in ctx.prunable.items()}, sparsity)


class Right:
    """Prunes before training and answers every event with the same masks; a fault happens at `moment`."""

    moment: Event | str = Event.STEP_BEGIN

    def setup(self, ctx: Context) -> Update:
        self.happen("setup", ctx)
        return Update(masks=smallest_first(ctx))

    def on_event(self, event: Event, ctx: Context) -> Any:
        self.happen(event, ctx)
        return None

    def compress(self, calibration: Any, ctx: Context) -> Any:
        self.happen("compress", ctx)

    def happen(self, moment: Event | str, ctx: Context) -> None:
        if moment == self.moment and (ctx.step > 0 or moment == "setup"):
            self.fault(ctx)

    def fault(self, ctx: Context) -> None:
        """What a wrong method does."""


class RevivesWeights(Right):
    def fault(self, ctx: Context) -> None:
        ctx.prunable["fc1.weight"].data.fill_(0.5)


class WritesBiases(Right):
    def fault(self, ctx: Context) -> None:
        ctx.model.get_parameter("fc1.bias").data.add_(1)


class WritesStatistics(Right):
    def fault(self, ctx: Context) -> None:
        ctx.model.get_buffer("norm.running_mean").add_(1)


class WritesMomentum(Right):
    def fault(self, ctx: Context) -> None:
        ctx._host.optimizer.state[ctx.model.get_parameter("fc1.weight")]["momentum_buffer"].add_(1)


class DrawsGlobally(Right):
    def fault(self, ctx: Context) -> None:
        torch.rand(1)


EVENTS = (Event.EPOCH_BEGIN, Event.STEP_BEGIN, Event.GRADS_READY, Event.STEP_END)
SIDE_EFFECTS = {
    RevivesWeights: "untouched",
    WritesBiases: "untouched",
    WritesStatistics: "untouched",
    WritesMomentum: "untouched",
    DrawsGlobally: "random-state",
    Right: "",
}


@pytest.mark.parametrize("method", SIDE_EFFECTS)
@pytest.mark.parametrize("moment", EVENTS)
def test_a_strict_host_catches_side_effects_at_every_event(
    method: type[Right], moment: Event, host_of: Callable[..., Host], images: Splits, caught: Caught
) -> None:
    wrong = method()
    wrong.moment = moment
    assert caught(host_of(wrong), images) == SIDE_EFFECTS[method]


@pytest.mark.parametrize("method", [WritesMomentum, DrawsGlobally, WritesStatistics])
def test_any_host_catches_them_where_it_looks(
    method: type[Right], host_of: Callable[..., Host], images: Splits, caught: Caught
) -> None:
    for moment in (Event.EPOCH_BEGIN, "compress"):
        wrong = method()
        wrong.moment = moment
        assert caught(host_of(wrong, strict=False), images) == SIDE_EFFECTS[method]


@pytest.mark.parametrize("method", [RevivesWeights, WritesBiases])
@pytest.mark.parametrize("moment", ["setup", "compress"])
def test_writes_through_data_are_seen_in_setup_and_compress(
    method: type[Right], moment: str, host_of: Callable[..., Host], images: Splits, caught: Caught
) -> None:
    wrong = method()
    wrong.moment = moment
    assert caught(host_of(wrong, strict=False), images) == "untouched"


def test_the_random_state_is_put_back_when_it_was_moved(net: Callable[..., nn.Module]) -> None:
    model = net()
    state = torch.get_rng_state()
    with pytest.raises(InvariantError, match=r"use ctx\.generator"), untouched(model, "here"):
        torch.rand(1)
    assert torch.equal(torch.get_rng_state(), state)


class Counts(nn.Module):
    """Moves a buffer when it is evaluated, the fault of a norm that is left in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            self.calls += 1
        return x


@pytest.mark.parametrize("strict", [True, False])
def test_an_evaluation_that_moves_a_statistic_is_caught(
    strict: bool, net: Callable[..., nn.Module], host_of: Callable[..., Host], images: Splits, caught: Caught
) -> None:
    assert caught(host_of(Right(), model=nn.Sequential(net(), Counts()), strict=strict), images) == "evaluation"


@pytest.mark.parametrize("fault", ["random state", "norm.running_mean", "mode", "fc1.weight", ""])
def test_everything_that_an_evaluation_must_not_move(fault: str, net: Callable[..., nn.Module]) -> None:
    model = net()

    def evaluate() -> None:
        with pure_evaluation(model, "epoch end"):
            if fault == "random state":
                torch.rand(1)
            elif fault == "mode":
                model.eval()
            elif fault:
                model.state_dict()[fault].add_(1)

    if not fault:
        evaluate()
        return
    with pytest.raises(InvariantError, match=f"evaluating moved .*{fault}") as error:
        evaluate()
    assert error.value.invariant == "evaluation"


def masked(net: Callable[..., nn.Module]) -> tuple[nn.Module, dict[str, Tensor], torch.optim.SGD]:
    model = net()
    masks = {"fc1.weight": torch.rand(16, 64) < 0.5}
    with torch.no_grad():
        model.get_parameter("fc1.weight").mul_(masks["fc1.weight"])
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for parameter in model.parameters():
        optimizer.state[parameter] = {"momentum_buffer": torch.zeros_like(parameter)}
    return model, masks, optimizer


@pytest.mark.parametrize("fault", ["weights", "slots", ""])
def test_a_masked_weight_or_slot_that_is_not_zero_is_named(fault: str, net: Callable[..., nn.Module]) -> None:
    model, masks, optimizer = masked(net)
    weight, off = model.get_parameter("fc1.weight"), tuple((~masks["fc1.weight"]).nonzero()[3].tolist())
    if not fault:
        check_weights(model, masks, optimizer, "here")
        return
    with torch.no_grad():
        {"weights": weight, "slots": optimizer.state[weight]["momentum_buffer"]}[fault][off] = 1e-30
    with pytest.raises(InvariantError, match=r"here: .*1 masked weights of fc1\.weight") as error:
        check_weights(model, masks, optimizer, "here")
    assert error.value.invariant == fault


class WritesMomentumLast(WritesMomentum):
    """At the end of the epoch's last step, before it could move a weight."""

    def fault(self, ctx: Context) -> None:
        if ctx.step == ctx.steps_per_epoch:
            super().fault(ctx)


@pytest.mark.parametrize(("method", "invariant"), [(RevivesWeights, "weights"), (WritesMomentumLast, "slots")])
def test_what_revives_weights_unseen_is_caught_at_the_end_of_the_epoch(
    method: type[Right], invariant: str, host_of: Callable[..., Host], images: Splits, caught: Caught
) -> None:
    wrong = method()
    wrong.moment = Event.STEP_END
    assert caught(host_of(wrong, strict=False), images) == invariant


@pytest.mark.parametrize("strict", [True, False])
def test_a_host_that_does_not_hold_its_masks_is_caught(
    strict: bool, host_of: Callable[..., Host], images: Splits, caught: Caught, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin of the keeper."""
    monkeypatch.setattr(Holding, "mask_gradients", lambda self: None)
    assert caught(host_of(Right(), strict=strict), images) == "weights"
