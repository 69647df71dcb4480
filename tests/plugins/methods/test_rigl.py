"""RigL: grows where a linear model's gradient is largest by its closed form, in place of the optimizer's step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sparsebench.builtin.methods._rigl import RigL
from sparsebench.errors import InvariantError
from sparsebench.nn import sparse_layers
from sparsebench.pruning.contract import Event, Update
from sparsebench.pruning.host import Host
from sparsebench.pruning.kernels import Kernels
from sparsebench.testing.methods import _any_backend
from sparsebench.training.data import Examples
from sparsebench.training.step import StepRunner

STEPS = 80  # with updates at 0, 5, …, 55
Made = Callable[[], Any]


def gradient(weight: Tensor, bias: Tensor, data: Examples) -> np.ndarray:
    """Of the mean cross-entropy of a linear model: (P - Y)ᵀ X / n."""
    x, y = data.inputs.double().numpy(), np.eye(len(bias))[data.labels.numpy()]
    logits = x @ weight.double().numpy().T + bias.detach().double().numpy()
    odds = np.exp(logits - logits.max(1, keepdims=True))
    return (odds / odds.sum(1, keepdims=True) - y).T @ x / len(x)


def grows_by_the_closed_form(make: Made, host_of: Any, batch: Any) -> None:
    """At updates: the smallest go, those of the largest gradients come, at 0; nothing else of the model moves."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 12))
    host = host_of("rigl", 0.5, "global", method=make(), model=model)
    host.begin(1, STEPS)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=0.01)
    host.attach(optimizer)
    step = StepRunner(model, optimizer, iter([batch(at) for at in range(20)]), host)
    name, grown_in_all = "0.weight", 0
    for at in range(20):
        host.ctx.step = at
        old, weight, bias = host.masks[name], model[0].weight.detach().clone(), model[0].bias.detach().clone()
        momentum = host.ctx.optimizer_slots(name).get("momentum_buffer", torch.zeros(12, 8))
        step()
        new, now = host.masks[name], model[0].weight.detach()
        if at % 5:
            assert torch.equal(old, new)
            assert not torch.equal(weight, now)
            continue
        count = int(0.15 * (1 + np.cos(np.pi * at / 60)) * 48 + 1e-9)
        assert count > 10
        sizes = np.where(old.numpy(), np.abs(weight.numpy()), np.inf).ravel()
        stays = old.numpy().ravel().copy()
        stays[np.argsort(sizes, kind="stable")[:count]] = False
        scores = np.where(stays, -np.inf, np.abs(gradient(weight, bias, batch(at))).ravel())
        stays[np.argsort(-scores, kind="stable")[:count]] = True
        assert np.array_equal(new.numpy().ravel(), stays)
        grown_in_all += int((new & ~old).sum())
        assert torch.equal(now, weight * (old & new))  # grown ones 0, no step taken, regrown ones as they were
        assert torch.equal(model[0].bias.detach(), bias)
        after = host.ctx.optimizer_slots(name).get("momentum_buffer", torch.zeros(12, 8))
        assert torch.equal(after, momentum * (old & new))
    assert grown_in_all > 20


class Signed(RigL):
    def growth(self, name: str, ctx: Any) -> Tensor:
        gradient = ctx.gradients(name)
        return gradient - gradient.min()


class OfTheMasked(RigL):
    """Looks at gradients that were masked already."""

    def growth(self, name: str, ctx: Any) -> Tensor:
        return super().growth(name, ctx) * ctx.masks[name]


class StepsToo(RigL):
    def on_event(self, event: Event, ctx: Any) -> Update | None:
        update = super().on_event(event, ctx)
        if update is not None:
            ctx._host.skip = False
        return update


class GrowsBesides(RigL):
    """Never regrows what was just dropped."""

    def growth(self, name: str, ctx: Any) -> Tensor:
        return super().growth(name, ctx) * ~ctx.masks[name]


def test_growth_is_the_closed_form(host_of: Callable[..., Host], batch: Callable[[int], Examples]) -> None:
    grows_by_the_closed_form(RigL, host_of, batch)


@pytest.mark.parametrize("broken", [Signed, OfTheMasked, StepsToo, GrowsBesides])
def test_another_growth_is_found(
    broken: type[RigL], host_of: Callable[..., Host], batch: Callable[[int], Examples]
) -> None:
    with pytest.raises(AssertionError):
        grows_by_the_closed_form(broken, host_of, batch)


def densities(shapes: dict[str, torch.Size], sparsity: float) -> dict[str, float]:
    """ERK by bisection on the common factor, where the code solves for it."""
    raw = {name: sum(shape) / shape.numel() for name, shape in shapes.items()}
    low, high = 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        kept = sum(min(1, middle * raw[name]) * shape.numel() for name, shape in shapes.items())
        wanted = (1 - sparsity) * sum(shape.numel() for shape in shapes.values())
        low, high = (middle, high) if kept < wanted else (low, middle)
    return {name: min(1, low * raw[name]) for name in shapes}


def keeps_the_counts_of_erk(make: Made, host_of: Any, drive: Any) -> None:
    """From the first step to what is exported."""
    host = host_of("rigl", 0.8, "erk", method=make())
    wanted = {
        name: round(density * host.masks[name].numel())
        for name, density in densities({name: mask.shape for name, mask in host.masks.items()}, 0.8).items()
    }
    counts: list[dict[str, int]] = []
    first: list[dict[str, Tensor]] = []

    def look() -> None:
        counts.append({name: int(mask.sum()) for name, mask in host.masks.items()})
        first.extend([] if first else [dict(host.masks)])

    drive(host, STEPS, look=look)
    assert all(count == wanted for count in counts)
    assert all(int(host.export()["sparse"][name].count_nonzero()) <= count for name, count in wanted.items())
    moved = {name for name, mask in host.masks.items() if not torch.equal(mask, first[0][name])}
    assert moved == {name for name, mask in host.masks.items() if not bool(mask.all())}
    assert len(moved) >= 2


class OneBudget(RigL):
    """Redraws within the model's budget and not by layer, and declares what comes of it."""

    needs = frozenset({"own_budget"})

    def on_event(self, event: Event, ctx: Any) -> Update | None:
        update = super().on_event(event, ctx)
        if update is None:
            return None
        masks = {name: mask.clone() for name, mask in ctx.masks.items()}
        first, second = (name for name, mask in list(masks.items())[:2])
        masks[first].view(-1)[masks[first].flatten().nonzero()[0]] = False
        masks[second].view(-1)[(~masks[second]).flatten().nonzero()[0]] = True
        return Update(masks=masks, kept={name: int(mask.sum()) for name, mask in masks.items()})


class Undeclared(OneBudget):
    def on_event(self, event: Event, ctx: Any) -> Update | None:
        update = super().on_event(event, ctx)
        return None if update is None else update._replace(kept=None)


def test_counts_are_those_of_erk(host_of: Callable[..., Host], drive: Callable[..., Host]) -> None:
    keeps_the_counts_of_erk(RigL, host_of, drive)
    with pytest.raises(AssertionError):
        keeps_the_counts_of_erk(OneBudget, host_of, drive)
    with pytest.raises(InvariantError, match="'budget'"):
        keeps_the_counts_of_erk(Undeclared, host_of, drive)


def is_dense_at_updates_alone(make: Made, name: str, host_of: Any, batch: Any) -> None:
    """Layers are exchanged at the first step and at RigL's updates, all there and back, and run on kernels between."""
    host = host_of(name, 0.8, "global", method=make(), kernels=Kernels(_any_backend(), batch(0).inputs))
    host.begin(1, STEPS)
    optimizer = torch.optim.SGD(host.model.parameters(), 0.05, momentum=0.9)
    host.attach(optimizer)
    layers = len(sparse_layers(host.model))
    assert layers >= 3
    step = StepRunner(host.model, optimizer, iter([batch(at) for at in range(STEPS)]), host)
    assert host.holding.kernels is not None
    for at in range(STEPS):
        host.ctx.step, before, updates = at, host.holding.kernels.swaps, host.updates
        step()
        updated = host.updates > updates
        assert len(sparse_layers(host.model)) == layers
        assert host.holding.kernels.swaps - before == (2 * layers if updated and name == "rigl" else 0)
        assert updated == (at in range(0, 60, 5)) or at > 40  # the last shares are less than one weight
    assert host.updates > 8


class AlwaysDense(RigL):
    def wants_dense_grads(self, ctx: Any) -> bool:
        return True


def test_layers_are_dense_at_updates_alone(host_of: Callable[..., Host], batch: Callable[[int], Examples]) -> None:
    is_dense_at_updates_alone(lambda: None, "set", host_of, batch)
    is_dense_at_updates_alone(RigL, "rigl", host_of, batch)
    with pytest.raises(AssertionError):
        is_dense_at_updates_alone(AlwaysDense, "rigl", host_of, batch)


def test_gradients_of_a_layer_that_has_none_are_zero(host_of: Callable[..., Host]) -> None:
    host = host_of("rigl", 0.5, "erk")
    host.begin(1, STEPS)
    growth = host.method.growth("3.weight", host.ctx)
    assert growth.shape == (20, 20)
    assert not bool(growth.any())
