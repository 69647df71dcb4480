"""A backend to test the layers with: it computes densely through torch, counts its calls, and can be made wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparsebench.plugin import Problem, SparseWeight


class Kernel:
    """`fault` is one of: '' (right), 'forward', 'grad_input', 'grad_values' (a sign), 'set_values' (ignored)."""

    def __init__(self, backend: Backend, problem: Problem, weight: SparseWeight) -> None:
        self.backend, self.problem, self.weight = backend, problem, weight

    def _dense(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        p = self.problem
        if p.op == "linear":
            return nn.functional.linear(x, weight, bias)
        return nn.functional.conv2d(x, weight, bias, p.stride, p.padding, p.dilation, p.groups)

    def _sign(self, what: str) -> int:
        return -1 if self.backend.fault == what else 1

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        assert not torch.is_grad_enabled()
        assert not x.requires_grad
        self.backend.calls.append("forward")
        return self._dense(x, self._sign("forward") * self.weight.to_dense(), bias)

    def backward(
        self, x: Tensor, grad_output: Tensor, needs: tuple[bool, bool] = (True, True), saved: Any = None
    ) -> tuple[Tensor | None, Tensor | None]:
        assert not torch.is_grad_enabled()
        self.backend.calls.append(f"backward {''.join('-+'[need] for need in needs)}{' saved' if saved else ''}")
        with torch.enable_grad():
            x, dense = x.detach().requires_grad_(), self.weight.to_dense().requires_grad_()
            grad_x, grad_dense = torch.autograd.grad(self._dense(x, dense, None), (x, dense), grad_output)
        values = grad_dense if self.backend.dense_grad else self.weight.gather(grad_dense)
        return (
            self._sign("grad_input") * grad_x if needs[0] else None,
            self._sign("grad_values") * values if needs[1] else None,
        )

    def set_values(self, values: Tensor) -> None:
        self.backend.calls.append("set_values")
        if self.backend.fault != "set_values":
            self.weight = self.weight.with_values(values)


class SavingKernel(Kernel):
    def forward_saving(self, x: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Any]:
        return self.forward(x, bias), ["packing"]


@dataclass
class Backend:
    fault: str = ""
    saving: bool = False
    dense_grad: bool = False
    memory_format: str = ""
    refuses: str | None = None
    calls: list[str] = field(default_factory=list)
    bound: list[Problem] = field(default_factory=list)

    def unsupported(self, problem: Problem) -> str | None:
        return self.refuses

    def bind(self, problem: Problem, weight: SparseWeight) -> Kernel:
        self.bound.append(problem)
        kernel = (SavingKernel if self.saving else Kernel)(self, problem, weight)
        kernel.dense_grad, kernel.memory_format = self.dense_grad, self.memory_format
        return kernel


@pytest.fixture(scope="session")
def make_backend() -> type[Backend]:
    return Backend


@pytest.fixture
def backend() -> Backend:
    return Backend()


@pytest.fixture(autouse=True)
def _seeded_on_one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # these tensors are tiny: threads would only wait for each other
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def prune(module: nn.Module, sparsity: float = 0.7) -> nn.Module:
    """Set a random share of every weight to zero, in place."""
    for each in module.modules():
        if isinstance(each, nn.Linear | nn.Conv2d):
            with torch.no_grad():
                each.weight.mul_(torch.rand(each.weight.shape) >= sparsity)
    return module


@pytest.fixture(scope="session", name="prune")
def prune_fixture() -> Any:
    return prune


class Net(nn.Module):
    """Convolutions, batch-norm, dropout and a linear layer on [N, 3, 8, 8]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, stride=2, padding="valid", groups=2)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(8 * 9, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.conv1(x)))
        return self.fc(self.drop(torch.relu(self.conv2(x)).flatten(1)))


@pytest.fixture
def net() -> nn.Module:
    return prune(Net())
