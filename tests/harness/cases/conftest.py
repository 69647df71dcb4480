"""One thread, as workers have it; orders of trainings, and what runs them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from sparsebench.harness.cases.base import Order, case_kind
from sparsebench.plugin import BackendSpec, MethodSpec, PluginInfo
from sparsebench.registry import Entry, Registry, Source, load_registry
from sparsebench.testing.honest import HonestBackend, HonestKernel

PARAMETERS = {"model": "mlp", "dataset": "digits", "batch": 64, "allocator": "uniform", "sparsity": 0.9, "seed": 0,
              "threads": 1, "epochs": 2, "lr": 0.1}  # fmt: skip
ADVERSARIAL = ("wrong_sign_forward", "wrong_sign_grad_input")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small models gain nothing from a second one, and lose much on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class OneWrongValue(HonestKernel):
    """The largest gradient has the other sign."""

    def backward(self, *args: Any, **rest: Any) -> Any:
        grad_input, grad_values = super().backward(*args, **rest)
        if grad_values is not None:
            grad_values[torch.argmax(grad_values.abs())] *= -1
        return grad_input, grad_values


AT_HAND: dict[str, Any] = {"honest": HonestBackend, "one-wrong-value": lambda: HonestBackend(OneWrongValue)}


@dataclass(frozen=True)
class Held(Entry):
    """An entry whose object is at hand."""

    made: Any = None

    def load(self) -> Any:
        return self.made


def held(spec: Any, made: Any) -> Held:
    return Held(spec, PluginInfo(name=spec.name), Source("a"), made=made)


@pytest.fixture(scope="package")
def all_installed() -> Registry:
    """What we ship, and backends that have a sign wrong."""
    folder = Path(__file__).parents[2] / "adversarial"
    return load_registry([folder / f"{name}.py" for name in ADVERSARIAL])


@pytest.fixture
def order_of(all_installed: Registry, tmp_path: Path) -> Callable[..., Order]:
    """An order to train with a method by name, or with a class; on a backend if the parameters name one."""

    def make(method: Any = "magnitude", kind: str = "accuracy", **changes: Any) -> Order:
        parameters = {**PARAMETERS, **changes}
        parts = {"model": "models", "dataset": "datasets", "allocator": "allocators"}
        found: dict[str, Any] = {part: all_installed.find(table, parameters[part]) for part, table in parts.items()}
        spec = MethodSpec(name="tested", summary="", load="a:b", kind="gradual", source="")
        found["method"] = all_installed.find("methods", method) if isinstance(method, str) else (held(spec, method), {})
        if "backend" in parameters:
            name = parameters["backend"]
            backend = BackendSpec(name=name, summary="", load="a:b", ops=("linear", "conv2d"))
            mine = (held(backend, AT_HAND.get(name)), {})
            found["backend"] = mine if name in AT_HAND else all_installed.find("backends", name)
        entries = {part: entry for part, (entry, _) in found.items()}
        options = {part: given for part, (_, given) in found.items()}
        return Order(kind, parameters, entries, tmp_path / "oracle", "g", options, tmp_path / "trainings" / "state.pt")

    return make


@pytest.fixture
def trained() -> Callable[[Order], Any]:
    """Gives the job of an order, run to its end from the beginning."""

    def run(order: Order) -> Any:
        order.state.unlink(missing_ok=True)
        job: Any = case_kind(order.kind).make(order, None)
        assert job.verify().ok
        job.prepare(order.parameters)
        job.run()
        return job

    return run
