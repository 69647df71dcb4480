"""Each method's proof as one function, passed by the method and failed by a twin with the fault it is there to find."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparsebench.builtin.allocators._global import Global
from sparsebench.builtin.methods._acdc import ACDC, Phase
from sparsebench.builtin.methods._gmp import GMP
from sparsebench.builtin.methods._magnitude import Magnitude
from sparsebench.builtin.methods._random import random_scores
from sparsebench.builtin.methods._static import Static
from sparsebench.errors import InvariantError
from sparsebench.plugin import Event, Update
from sparsebench.pruning.host import Host
from sparsebench.registry import load_registry
from sparsebench.training.data import Examples, Splits
from sparsebench.training.loop import train
from sparsebench.training.recipe import Recipe

FAULT = (AssertionError, InvariantError)
TARGET = 0.75


class Even:
    def allocate(self, layers: Any, target: float, ctx: Any) -> dict[str, float]:
        return dict.fromkeys(layers, target)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))


def data() -> Splits:
    draw = torch.Generator().manual_seed(0)
    parts = [Examples(torch.randn(n, 8, generator=draw), torch.randint(3, (n,), generator=draw)) for n in (64, 16, 16)]
    return Splits(*parts)


class Watch:
    """The method inside, with what was seen at the end of every step."""

    def __init__(self, method: Any) -> None:
        self.method, self.trace = method, []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.method, name)

    def on_event(self, event: Event, ctx: Any) -> Update | None:
        if event is Event.STEP_END:
            self.trace.append(round(1 - sum(int(m.sum()) for m in ctx.masks.values()) / (8 * 16 + 16 * 3), 4))
        inner = getattr(self.method, "on_event", None)
        return inner(event, ctx) if inner else None


def trained(make: Callable[[], Any], like: str, epochs: int = 5, lr: float = 0.1, **options: Any) -> tuple[Any, Host]:
    spec = load_registry().methods[like].spec
    watch, model = Watch(make()), net()
    sparsity = 0.0 if spec.kind == "none" else TARGET
    host = Host(model, watch, Even(), sparsity=sparsity, name=like, parameters={**spec.parameters, **options})
    train(model, data(), Recipe(epochs=epochs, batch=16, lr=lr), host=host)
    return watch, host


def masks_of(make: Callable[[], Any], sparsity: float, allocator: Any = None, **more: Any) -> dict[str, Tensor]:
    model = more.pop("model", None) or net()
    host = Host(model, make(), allocator or Even(), sparsity=sparsity, **more)
    host.begin()
    if not host.updates:
        host.finish()
    return host.masks


def flat(masks: dict[str, Tensor]) -> Tensor:
    return torch.cat([mask.reshape(-1) for mask in masks.values()])


# gmp


def rises_and_lands(make: Callable[[], Any]) -> None:
    """The sparsity never falls in training and is the target's from the share `end` on, in short trainings too."""
    for epochs in (1, 2, 10):
        watch, host = trained(make, "gmp", epochs)
        assert watch.trace == sorted(watch.trace)
        assert watch.trace[-1] == TARGET == watch.trace[round(0.7 * len(watch.trace))]
    planned = list(make().schedule(host.ctx).values())
    assert (planned[0], planned[-1]) == (0.05, TARGET)


def without_training_is_one_shot(make: Callable[[], Any]) -> None:
    """With a learning rate of 0 the last masks are those of the largest weights."""
    _, host = trained(make, "gmp", lr=0.0)
    assert torch.equal(flat(host.masks), flat(masks_of(Magnitude, TARGET)))


class EndsOffTheGrid(GMP):
    """Divides by one more than there are updates, as published code does."""

    @staticmethod
    def schedule(ctx: Any) -> dict[int, float]:
        planned = GMP.schedule(ctx)
        return dict(zip(list(planned)[:-1], list(planned.values())[:-1], strict=True)) or planned


class KeepsTheSmallest(GMP):
    def _update(self, ctx: Any, sparsity: float) -> Update:
        return Update(masks=ctx.select({n: -w.abs() for n, w in ctx.prunable.items()}, sparsity), sparsity=sparsity)


# acdc


def alternates_and_ends_sparse(make: Callable[[], Any]) -> None:
    """The sparsity is 0 or the target at every step, both come, and the last is the target."""
    watch, _ = trained(make, "acdc", 10, phase=0.1)
    assert set(watch.trace) == {0.0, TARGET}
    assert watch.trace[-1] == TARGET
    assert sum(a != b for a, b in pairwise(watch.trace)) >= 5


def exports_two_models(make: Callable[[], Any]) -> None:
    """A sparse and a dense model that differ, the dense one without the zeros."""
    _, host = trained(make, "acdc", 10, phase=0.1)
    made = host.export()
    assert set(made) == {"sparse", "dense"}
    zeros = {name: int((state["0.weight"] == 0).sum()) for name, state in made.items()}
    assert zeros["dense"] < zeros["sparse"] == 96


def without_compression_is_sgd(make: Callable[[], Any]) -> None:
    """If the only compression comes before the last step, whose rate is nearly 0, the twin is the dense model."""
    rare = {"warmup": 0.0, "last": 0.95, "finetune": 0.05, "phase": 1.0}
    _, host = trained(make, "acdc", 5, **rare)
    _, dense = trained(lambda: load_registry().create("methods", "dense"), "dense", 5)
    twin, plain = host.export()["dense"], dense.export()["sparse"]
    assert float((twin["0.weight"] - plain["0.weight"]).abs().max()) < 1e-3


class HalfFirst(ACDC):
    """Prunes to half of the way at each compression."""

    def on_event(self, event: Event, ctx: Any) -> Update | None:
        update = super().on_event(event, ctx)
        if update is not None and update.sparsity is None and ctx.step < 30:
            half = TARGET / 2
            return Update(masks=ctx.select({n: w.abs() for n, w in ctx.prunable.items()}, half), sparsity=half)
        return update


class EndsDense(ACDC):
    @staticmethod
    def phases(ctx: Any) -> list[Phase]:
        return ACDC.phases(ctx)[:-1]


class OneModel(ACDC):
    def export(self, ctx: Any) -> dict[str, Any]:
        return {"sparse": ctx.state(), "dense": ctx.state()}


class Meddles(ACDC):
    """Shrinks every weight at its first event."""

    def on_event(self, event: Event, ctx: Any) -> Update | None:
        if event is Event.STEP_BEGIN and ctx.step == 0:
            return Update(weights={name: weight * 0.9 for name, weight in ctx.prunable.items()})
        return super().on_event(event, ctx)


# magnitude, static, global


def nests(make: Callable[[], Any]) -> None:
    """What is kept at a sparsity is kept at every lower one."""
    masks = [flat(masks_of(make, sparsity)) for sparsity in (0.25, 0.5, 0.75, 0.9)]
    assert all(not bool((sparser & ~denser).any()) for denser, sparser in pairwise(masks))


def follows_its_neurons(make: Callable[[], Any]) -> None:
    """Neurons in another order have their masks in that order."""
    order, turned = torch.randperm(16, generator=torch.Generator().manual_seed(1)), net()
    with torch.no_grad():
        turned[0].weight.copy_(turned[0].weight[order])
    assert torch.equal(masks_of(make, TARGET, model=turned)["0.weight"], masks_of(make, TARGET)["0.weight"][order])


def leaves_other_layers_alone(make: Callable[[], Any]) -> None:
    """Excluding a layer changes no other layer's mask."""
    assert torch.equal(masks_of(make, TARGET)["2.weight"], masks_of(make, TARGET, exclude=["0"])["2.weight"])


def is_uniform_on_one_layer(allocator: Any) -> None:
    """With one layer the whole model is that layer."""
    one = masks_of(Magnitude, TARGET, allocator, exclude=["2"])
    assert torch.equal(one["0.weight"], masks_of(Magnitude, TARGET, exclude=["2"])["0.weight"])


class ByChance:
    def compress(self, calibration: Any, ctx: Any) -> Update:
        draw = torch.Generator().manual_seed(round(1000 * ctx.sparsity))
        return Update(masks=ctx.select({n: torch.rand(w.shape, generator=draw) for n, w in ctx.prunable.items()}))


class ByPlace:
    def compress(self, calibration: Any, ctx: Any) -> Update:
        return Update(masks=ctx.select(random_scores(ctx)))


class OneStream:
    def setup(self, ctx: Any) -> Update:
        scores = {n: torch.rand(w.shape, generator=ctx.generator) for n, w in ctx.prunable.items()}
        return Update(masks=ctx.select(scores))


class ALittleOff(Global):
    scope = "layer"

    def allocate(self, layers: Any, target: float, ctx: Any) -> dict[str, float]:
        return dict.fromkeys(layers, target - 0.02)


@pytest.mark.parametrize(
    ("oracle", "honest", "broken"),
    [
        (rises_and_lands, GMP, EndsOffTheGrid),
        (without_training_is_one_shot, GMP, KeepsTheSmallest),
        (alternates_and_ends_sparse, ACDC, HalfFirst),
        (alternates_and_ends_sparse, ACDC, EndsDense),
        (exports_two_models, ACDC, OneModel),
        (without_compression_is_sgd, ACDC, Meddles),
        (nests, Magnitude, ByChance),
        (follows_its_neurons, Magnitude, ByPlace),
        (leaves_other_layers_alone, Static, OneStream),
        (is_uniform_on_one_layer, Global(), ALittleOff()),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_the_method_passes_and_its_twin_fails(oracle: Callable[[Any], None], honest: Any, broken: Any) -> None:
    oracle(honest)
    with pytest.raises(FAULT):
        oracle(broken)
