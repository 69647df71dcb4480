"""Hosts of the built-in methods on a small model with ties in its weights, and a training of them step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from sparsebench.pruning.contract import Update
from sparsebench.pruning.host import Host
from sparsebench.registry import Registry, load_registry
from sparsebench.training.data import Examples
from sparsebench.training.step import StepRunner


@pytest.fixture(scope="session")
def registry() -> Registry:
    return load_registry()


@pytest.fixture
def net() -> Callable[..., nn.Sequential]:
    """`net(tied)`: four linear layers and two norms; tied weights are small whole numbers."""

    def make(tied: bool = False) -> nn.Sequential:
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(8, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Linear(20, 20), nn.ReLU(), nn.Dropout(0.2),
            nn.Linear(20, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Linear(20, 3),
        )  # fmt: skip
        if tied:
            with torch.no_grad():
                for layer in model[::3]:
                    layer.weight.copy_((4 * torch.randn(layer.weight.shape)).round())
        return model

    return make


@pytest.fixture
def host_of(net: Callable[..., nn.Sequential], registry: Registry) -> Callable[..., Host]:
    """`host_of("gmp@regrow=true", sparsity, allocator="erk", model=…, seed=…, …)`, strict."""

    def make(name: str, sparsity: float = 0.8, allocator: str = "global", **options: Any) -> Host:
        entry, parameters = registry.find("methods", name)
        options = {"strict": True, "needs": entry.spec.needs, "name": name, "parameters": parameters, **options}
        model = options.pop("model", None)
        return Host(
            net() if model is None else model,
            options.pop("method", None) or entry.load()(),
            registry.create("allocators", allocator),
            sparsity=sparsity,
            **options,
        )

    return make


@pytest.fixture
def own_budget() -> Callable[[Any], Any]:
    """`own_budget(method)`: `compress` declares what it keeps, so that an oracle decides on counts and not the host."""

    def make(method: Any) -> Any:
        class Declares(method):  # type: ignore[misc]
            needs = frozenset({"own_budget"})

            def compress(self, calibration: Any, ctx: Any) -> Iterator[Update]:
                for update in super().compress(calibration, ctx):
                    yield update._replace(kept={name: int(mask.sum()) for name, mask in update.masks.items()})

        return Declares

    return make


class Watched:
    """A host whose steps somebody looks at: after the method was asked, before the forward."""

    def __init__(self, host: Host, look: Callable[[], None]) -> None:
        self._host, self._look = host, look

    def step_begin(self) -> None:
        assert self._host.optimizer is not None
        self._host.optimizer.zero_grad()  # where most training loops do it
        self._host.step_begin()
        self._look()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._host, name)


def drive(host: Host, steps: int, lr: float = 0.05, look: Callable[[], None] = lambda: None) -> Host:
    """A training of one epoch with momentum and weight decay, to its end; dropout and batches are always the same."""
    torch.manual_seed(1)
    host.begin(1, steps)
    optimizer = torch.optim.SGD(host.model.parameters(), lr, momentum=0.9, weight_decay=0.01 if lr else 0.0)
    host.attach(optimizer)
    host.services.take, host.services.put = lambda: {"model": host.state()}, lambda *_: None  # type: ignore[method-assign]
    step = StepRunner(host.model, optimizer, iter([batch(at) for at in range(steps)]), Watched(host, look))
    for _ in range(steps):
        step()
    host.finish()
    return host


def batch(at: int) -> Examples:
    draw = torch.Generator().manual_seed(at)
    inputs = torch.randn(16, 8, generator=draw)
    return Examples(inputs, inputs[:, :3].argmax(1))


@pytest.fixture(name="drive")
def drive_fixture() -> Callable[..., Host]:
    return drive


@pytest.fixture(name="batch")
def batch_fixture() -> Callable[[int], Examples]:
    return batch


@pytest.fixture(autouse=True)
def _on_one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
