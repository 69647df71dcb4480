"""A wrong answer of a method is caught before anything is changed, by the invariant's name, strict or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sparsebench.pruning.context import Context
from sparsebench.pruning.contract import Event, Update
from sparsebench.pruning.host import Host
from sparsebench.training.data import Splits

Caught = Callable[[Host, Splits], str]


def smallest_first(ctx: Context, sparsity: float | None = None) -> dict[str, Tensor]:
    return ctx.select({name: weight.abs() for name, weight in ctx.prunable.items()}, sparsity)


class Right:
    """Prunes before training."""

    def setup(self, ctx: Context) -> Update:
        return Update(masks=smallest_first(ctx))


class OneShort(Right):
    """The threshold's off-by-one, in the course of training."""

    def on_event(self, event: Event, ctx: Context) -> Any:
        if event is not Event.STEP_BEGIN or ctx.step != 1:
            return None
        masks = {name: mask.clone() for name, mask in smallest_first(ctx).items()}
        masks["fc1.weight"].view(-1)[masks["fc1.weight"].view(-1).nonzero()[0]] = False
        return Update(masks=masks)


class OtherSparsity(Right):
    def on_event(self, event: Event, ctx: Context) -> Any:
        return Update(masks=smallest_first(ctx, 0.6)) if event is Event.EPOCH_BEGIN else None


class UndeclaredBudget(Right):
    def on_event(self, event: Event, ctx: Context) -> Any:
        masks = smallest_first(ctx, 0.6)
        kept = {name: int(mask.sum()) for name, mask in masks.items()}
        return Update(masks=masks, kept=kept) if event is Event.EPOCH_BEGIN else None


class EndsDense(Right):
    def on_event(self, event: Event, ctx: Context) -> Any:
        masks = {name: torch.ones_like(mask) for name, mask in ctx.masks.items()}
        return Update(masks=masks, sparsity=0.0) if event is Event.EPOCH_BEGIN else None


class NeverPrunes:
    """Needs no function at all."""


class PrunesANorm(Right):
    def on_event(self, event: Event, ctx: Context) -> Any:
        return Update(masks={"norm.weight": torch.tensor([True, True, True, False])})


class WeighsABias(Right):
    def on_event(self, event: Event, ctx: Context) -> Any:
        return Update(weights={"fc1.bias": torch.zeros(16)})


class WeighsNotANumber(Right):
    def on_event(self, event: Event, ctx: Context) -> Any:
        return Update(weights={"fc1.weight": torch.full((16, 64), float("nan"))})


class WeighsAnotherShape(Right):
    def on_event(self, event: Event, ctx: Context) -> Any:
        return Update(weights={"fc1.weight": torch.ones(64, 16)})


class AnswersMasks(Right):
    def on_event(self, event: Event, ctx: Context) -> Any:
        return dict(ctx.masks)


ANSWERS = {
    OneShort: "budget",
    OtherSparsity: "budget",
    UndeclaredBudget: "budget",
    EndsDense: "final-budget",
    NeverPrunes: "final-budget",
    PrunesANorm: "scope",
    WeighsABias: "scope",
    WeighsNotANumber: "scope",
    WeighsAnotherShape: "scope",
    AnswersMasks: "scope",
}


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("method", ANSWERS)
def test_a_wrong_answer_is_caught_with_and_without_strict(
    method: type, strict: bool, host_of: Callable[..., Host], images: Splits, caught: Caught
) -> None:
    assert caught(host_of(method(), strict=strict), images) == ANSWERS[method]


def test_an_excluded_layer_is_out_of_scope(host_of: Callable[..., Host], images: Splits, caught: Caught) -> None:
    class PrunesIt(Right):
        def on_event(self, event: Event, ctx: Context) -> Any:
            return Update(masks={"fc2.weight": torch.ones(3, 16, dtype=torch.bool)})

    assert caught(host_of(PrunesIt(), exclude=["fc2"]), images) == "scope"
    assert caught(host_of(Right(), exclude=["fc2"]), images) == ""
