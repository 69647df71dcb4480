"""CrAM: SGD and SAM where it must be, the step by hand where it is neither; dense until one-shot pruning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy
from torch.optim import SGD

from sparsebench.builtin.methods._cram import CrAM
from sparsebench.errors import InvariantError
from sparsebench.pruning.host import Host
from sparsebench.registry import load_registry
from sparsebench.training.data import Examples
from sparsebench.training.step import StepRunner

FAULT = (AssertionError, InvariantError)
Make = Callable[[], Any]


def net(dropout: float = 0.0) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(8, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Dropout(dropout), nn.Linear(20, 16), nn.ReLU(),
        nn.Linear(16, 3),
    )  # fmt: skip


def batch(at: int) -> Examples:
    inputs = torch.randn(16, 8, generator=torch.Generator().manual_seed(at))
    return Examples(inputs, inputs[:, :3].argmax(1))


def host_of(make: Make, name: str, sparsity: float = 0.8, model: nn.Module | None = None, on: str = "global") -> Host:
    registry = load_registry()
    entry, parameters = registry.find("methods", name)
    return Host(
        net() if model is None else model, make(), registry.create("allocators", on), sparsity=sparsity, name=name,
        needs=entry.spec.needs, parameters=parameters,
    )  # fmt: skip


def run(host: Host, steps: int, lr: float = 0.05, momentum: float = 0.9) -> dict[str, Tensor]:
    """The state after a training without its end, where the model is pruned."""
    torch.manual_seed(1)
    host.begin(1, steps)
    optimizer = SGD(host.model.parameters(), lr, momentum)
    host.attach(optimizer)
    step = StepRunner(host.model, optimizer, iter([batch(at) for at in range(steps)]), host)
    for _ in range(steps):
        step()
    return host.state()


def plain(steps: int, lr: float = 0.05, dropout: float = 0.0) -> dict[str, Tensor]:
    return run(host_of(load_registry().methods["dense"].load(), "dense", 0.0, net(dropout)), steps, lr)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def gradients(host: Host) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in host.model.named_parameters() if p.grad is not None}


def by_hand(rho: float, sparsity: float, plus: bool) -> dict[str, Tensor]:
    """The gradient of one step at the first weights, by torch's functional calls and a sort of numbers."""
    model, data = net(), batch(0)
    weights = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    buffers = {name: b.clone() for name, b in model.named_buffers()}

    def grad(at: dict[str, Tensor]) -> dict[str, Tensor]:
        loss = cross_entropy(functional_call(model, {**at, **buffers}, (data.inputs,)), data.labels)
        return dict(zip(at, torch.autograd.grad(loss, list(at.values())), strict=True))

    first = grad(weights)
    moved = {name: (p.detach() + rho * first[name]) for name, p in weights.items()}
    pruned = [name for name, p in weights.items() if p.dim() == 2]
    ordered = sorted((float(v) for name in pruned for v in moved[name].abs().flatten()), reverse=True)
    threshold = ordered[round((1 - sparsity) * len(ordered)) - 1]
    masks = {name: moved[name].abs() >= threshold if name in pruned else torch.ones_like(moved[name]) for name in moved}
    second = grad({name: (moved[name] * masks[name]).requires_grad_() for name in moved})
    return {name: second[name] * masks[name] + (first[name] if plus else 0) for name in moved}


# The oracles


def without_both_is_sgd(make: Make) -> None:
    """Bit for bit, with norms, and with dropout: the random stream is that of a plain training."""
    found = run(host_of(make, "cram@rho=0,sparsities=0", model=net(0.3)), 20)
    assert same(found, plain(20, dropout=0.3))


def plus_without_both_is_sgd_on_twice_the_loss(make: Make) -> None:
    """Bit for bit: with momentum and no decay that is twice the rate, and 2 is a power of 2."""
    assert same(run(host_of(make, "cram@rho=0,sparsities=0,plus=true"), 20), plain(20, lr=0.1))


def leaves_weights_where_they_are(make: Make) -> None:
    """With a learning rate of 0 nothing moves but the statistics of norms."""
    host = host_of(make, "cram@rho=0.3,sparsities=0.5/0.9,plus=true")
    before = host.state()
    after = run(host, 5, lr=0.0)
    assert all(torch.equal(after[name], before[name]) for name, _ in host.model.named_parameters())


def moves_statistics_once_a_step(make: Make) -> None:
    host, dense = host_of(make, "cram@rho=0.3,sparsities=0.9"), plain(1)
    after = run(host, 1)
    for name, _ in host.model.named_buffers():
        assert torch.equal(after[name], dense[name])
    assert int(after["1.num_batches_tracked"]) == 1


def draws_every_level(make: Make) -> None:
    """Between the first and the second pass of a step: exactly so sparse, and each level in its turn."""
    host = host_of(make, "cram@sparsities=0.25/0.5/0.75")
    host.begin(1, 150)
    host.attach(SGD(host.model.parameters(), 0.1))
    total, seen = sum(weight.numel() for weight in host.ctx.prunable.values()), []

    def closure() -> float:
        seen.append(sum(int((weight == 0).sum()) for weight in host.ctx.prunable.values()) / total)
        host.model.zero_grad()
        loss = cross_entropy(host.model(batch(0).inputs), batch(0).labels)
        loss.backward()
        return loss.item()

    for _ in range(150):
        host.run_step(closure)
    assert set(seen[::2]) == {0.0}
    counts = Counter(seen[1::2])
    assert set(counts) == {0.25, 0.5, 0.75}
    assert min(counts.values()) > 30  # 50 expected, with a standard deviation of 6


def is_sam_without_compression(make: Make) -> None:
    """Not normalised, over biases and norms too."""
    host = host_of(make, "cram@rho=0.3,sparsities=0")
    run(host, 1)
    expected = by_hand(0.3, 0.0, plus=False)
    for name, found in gradients(host).items():
        torch.testing.assert_close(found, expected[name], rtol=1e-5, atol=1e-7)


def is_the_step_by_hand(make: Make) -> None:
    """Perturbed first, compressed then; masked gradients; the sum for CrAM+."""
    for plus in (False, True):
        host = host_of(make, f"cram@rho=0.5,sparsities=0.7,plus={str(plus).lower()}")
        run(host, 1)
        expected = by_hand(0.5, 0.7, plus)
        for name, found in gradients(host).items():
            torch.testing.assert_close(found, expected[name], rtol=1e-5, atol=1e-7)


# Twins with the fault


class Other:
    """A context with something else in place of its own."""

    def __init__(self, ctx: Any, **own: Any) -> None:
        self.__dict__.update(own, _ctx=ctx)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ctx, name)


class RunsThrice(CrAM):
    def step(self, closure: Callable[[], float], ctx: Any) -> None:
        closure()
        super().step(closure, ctx)


class TakesTheMean(CrAM):
    def step(self, closure: Callable[[], float], ctx: Any) -> None:
        super().step(closure, ctx)
        for parameter in ctx.model.parameters():
            parameter.grad.div_(2)


class StaysPerturbed(CrAM):
    def step(self, closure: Callable[[], float], ctx: Any) -> None:
        super().step(closure, ctx)
        for parameter in ctx.model.parameters():
            parameter.data.add_(parameter.grad, alpha=0.1)


class TheFirstLevel(CrAM):
    def level(self, ctx: Any) -> float:
        return self._levels[0]


class Descends(CrAM):
    def step(self, closure: Callable[[], float], ctx: Any) -> None:
        super().step(closure, Other(ctx, parameters={**ctx.parameters, "rho": -ctx.parameters["rho"]}))


class LeavesGradients(CrAM):
    def step(self, closure: Callable[[], float], ctx: Any) -> None:
        super().step(closure, Other(ctx, parameters={**ctx.parameters, "sparse_grad": False}))


class CompressesFirst(CrAM):
    """Chooses by the weights before the perturbation."""

    def step(self, closure: Callable[[], float], ctx: Any) -> None:
        def select(scores: Any, sparsity: float, empty: bool) -> Any:
            return ctx.select({name: w.abs() for name, w in ctx.prunable.items()}, sparsity, empty=empty)

        super().step(closure, Other(ctx, select=select))


@pytest.mark.parametrize(
    ("oracle", "broken"),
    [
        (without_both_is_sgd, RunsThrice),
        (without_both_is_sgd, StaysPerturbed),
        (plus_without_both_is_sgd_on_twice_the_loss, TakesTheMean),
        (leaves_weights_where_they_are, StaysPerturbed),
        (moves_statistics_once_a_step, RunsThrice),
        (draws_every_level, TheFirstLevel),
        (is_sam_without_compression, Descends),
        (is_the_step_by_hand, LeavesGradients),
        (is_the_step_by_hand, CompressesFirst),
    ],
    ids=lambda value: value.__name__,
)
def test_the_method_passes_and_its_twin_fails(oracle: Callable[[Make], None], broken: Make) -> None:
    oracle(CrAM)
    with pytest.raises(FAULT):
        oracle(broken)


# What else must hold


def test_it_is_dense_until_it_is_pruned_in_one_shot() -> None:
    host = host_of(CrAM, "cram@plus=true,sparsities=0.5/0.9", 0.7)
    trained = run(host, 10)
    assert host.sparsity_now == 0
    host.finish()
    ordered = torch.cat([trained[name].abs().flatten() for name in host.masks]).sort(descending=True).values
    threshold = ordered[host.ctx.budgets().total - 1]
    assert all(torch.equal(mask, trained[name].abs() >= threshold) for name, mask in host.masks.items())


def test_two_of_four_in_every_second_pass() -> None:
    host = host_of(CrAM, "cram", 0.5, on="nm:2:4")
    groups: list[set[int]] = []
    original = host.model.forward

    def forward(inputs: Tensor) -> Tensor:
        weights = host.ctx.prunable.values()
        groups.append({int(n) for w in weights for n in (w != 0).reshape(-1, 4).sum(1)})
        return original(inputs)

    host.model.forward = forward  # type: ignore[method-assign]
    run(host, 5)
    assert groups == [{4}, {2}] * 5


def test_a_frozen_layer_stays_and_is_compressed() -> None:
    model = net()
    model[4].weight.requires_grad_(False)
    before = model[4].weight.clone()
    host = host_of(CrAM, "cram@plus=true", model=model)
    run(host, 5)
    assert torch.equal(model[4].weight, before)
    assert model[4].weight.grad is None
    host.finish()
    assert not bool(host.masks["4.weight"].all())


def test_a_layer_that_only_the_first_pass_used_has_the_first_gradient() -> None:
    """With CrAM+; CrAM itself has none for it."""
    for plus, count in (("true", 1), ("false", 0)):
        host = host_of(CrAM, f"cram@plus={plus}")
        host.begin(1, 1)
        calls: list[int] = []

        def closure(host: Host = host, calls: list[int] = calls) -> float:
            calls.append(1)
            host.model.zero_grad()
            loss = host.model(batch(0).inputs).square().mean()
            loss.backward()
            if len(calls) == 2:
                host.model[6].bias.grad = None  # type: ignore[index,union-attr]
            return loss.item()

        host.run_step(closure)
        assert (host.model[6].bias.grad is not None) == bool(count)  # type: ignore[index,union-attr]
