"""The grid can fail: kernels with one fault each fail exactly the checks that show it, and pass all others."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sparsebench.plugin import BackendSpec, Problem, SparseWeight
from sparsebench.testing import Check, checks_for, run_check
from sparsebench.testing.honest import HonestBackend, HonestKernel

SPEC = BackendSpec(
    name="faulty", summary="has one fault", load="here:Faulty", ops=("linear", "conv2d"), dtypes=("float32", "float64")
)


class NeedsAlignment(HonestKernel):
    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        return super().forward(x, bias) * (1.01 if x.data_ptr() % 64 else 1.0)


class NeedsContiguousGradients(HonestKernel):
    def backward(self, x: Tensor, grad_output: Tensor, needs: Any = (True, True), saved: Any = None) -> Any:
        if not grad_output.is_contiguous():
            grad_output = grad_output.new_zeros(grad_output.shape)
        return super().backward(x, grad_output, needs)


class LosesExplicitZeros(HonestKernel):
    def backward(self, x: Tensor, grad_output: Tensor, needs: Any = (True, True), saved: Any = None) -> Any:
        grad_input, grad_values = super().backward(x, grad_output, needs)
        zero = self.dense.reshape(-1)[self.places] == 0
        return grad_input, None if grad_values is None else grad_values.masked_fill(zero, 0)


class HidesNonFinite(HonestKernel):
    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        return super().forward(torch.nan_to_num(x, 0, 0, 0), bias)


class SpreadsInfinity(HonestKernel):
    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        return super().forward(x, bias) + (0.0 if bool(x.isfinite().all()) else torch.inf)


class KeepsItsFirstShape(HonestKernel):
    shape: torch.Size | None = None

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        self.shape = self.shape or x.shape
        if x.shape != self.shape:
            raise ValueError("my scratch has another size")
        return super().forward(x, bias)


class RacesBetweenThreads(HonestKernel):
    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        output = super().forward(x, bias)
        output[0] *= torch.get_num_threads()
        return output


class NeedsNonZeros(HonestKernel):
    def __init__(self, problem: Problem, weight: SparseWeight) -> None:
        if weight.nnz == 0:
            raise ZeroDivisionError("no non-zeros")
        super().__init__(problem, weight)


class IgnoresBias(HonestKernel):
    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        return super().forward(x)


class ComputesInFloat32(HonestKernel):
    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        return super().forward(x.float().to(x.dtype), bias)


class IgnoresDilation(HonestKernel):
    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        if self.problem.op == "linear":
            return super().forward(x, bias)
        p = self.problem
        return torch.nn.functional.conv2d(x, self.dense, bias, p.stride, p.padding, 1, p.groups)


class NeedsEvenStride(HonestKernel):
    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        if self.problem.op == "linear":
            return super().forward(x, bias)
        p = self.problem
        return torch.nn.functional.conv2d(x, self.dense, bias, p.stride[0], p.padding, p.dilation, p.groups)


def of_kind(*kinds: str) -> Callable[[Check], bool]:
    return lambda check: check.kind in kinds


FAULTS: list[tuple[type[HonestKernel], Callable[[Check], bool]]] = [
    (NeedsAlignment, of_kind("unaligned")),
    (NeedsContiguousGradients, of_kind("transposed", "every other element", "expanded", "channels last")),
    (LosesExplicitZeros, of_kind("explicit zeros")),
    (HidesNonFinite, of_kind("non-finite input")),
    (SpreadsInfinity, of_kind("non-finite input")),
    (KeepsItsFirstShape, of_kind("alternating shapes")),
    (RacesBetweenThreads, of_kind("two threads")),
    (NeedsNonZeros, of_kind("empty weight")),
    (IgnoresBias, lambda check: check.problem.bias),
    (ComputesInFloat32, lambda check: check.problem.dtype == "float64"),
    (IgnoresDilation, lambda check: check.problem.dilation != (1, 1)),
    (NeedsEvenStride, lambda check: check.problem.stride[0] != check.problem.stride[1]),
]


def failed(kernel: type[HonestKernel], checks: list[Check]) -> set[str]:
    results = [run_check(HonestBackend(kernel), SPEC, check) for check in checks]
    assert all(result.reason for result in results if result.status != "ok")
    return {result.name for result in results if result.status != "ok"}


def test_the_honest_kernel_fails_nothing() -> None:
    assert failed(HonestKernel, checks_for(SPEC)) == set()


@pytest.mark.parametrize(("kernel", "shows"), FAULTS, ids=[kernel.__name__ for kernel, _ in FAULTS])
def test_a_fault_fails_what_shows_it(kernel: type[HonestKernel], shows: Callable[[Check], bool]) -> None:
    grid = checks_for(SPEC)
    wanted = [check for check in grid if shows(check)]
    others = [check for check in grid if not shows(check)][::4]  # a sample: the whole grid takes a second
    assert wanted
    assert failed(kernel, wanted + others) == {check.name for check in wanted}
