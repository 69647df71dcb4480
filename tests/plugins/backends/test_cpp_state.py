"""What `cpp` keeps from call to call and what it must not: bits, strides, saved packings, scratch, bytes."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from sparsebench.builtin.backends._cpp import CppBackend, CppKernel
from sparsebench.plugin import Problem, SparseWeight

LINEAR = Problem(op="linear", in_features=300, out_features=200, batch=96, sparsity=0.7)
CONV = Problem(op="conv2d", in_features=12, out_features=24, kernel_size=(3, 3), padding=(1, 1), height=14, width=11,
               batch=9, sparsity=0.7)  # fmt: skip
POINT = replace(CONV, kernel_size=(1, 1), padding=(0, 0), height=1, width=1, batch=2)
BOTH = pytest.mark.parametrize("layer", [LINEAR, CONV], ids=["linear", "conv2d"])


def data_of(problem: Problem, density: float = 0.3) -> tuple[SparseWeight, Tensor, Tensor]:
    """(weight, x, grad_output), seeded."""
    torch.manual_seed(0)
    weight, x, grad_output = map(torch.randn, (problem.weight_shape, problem.input_shape, problem.output_shape))
    return SparseWeight.from_dense(weight, torch.rand(weight.shape) < density), x, grad_output


def results(kernel: CppKernel, x: Tensor, grad_output: Tensor) -> tuple[Any, ...]:
    """Output, both gradients, and both again with what forward saves."""
    out, saved = kernel.forward_saving(x)
    return kernel.forward(x), *kernel.backward(x, grad_output), out, *kernel.backward(x, grad_output, saved=saved)


def same_bits(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    return all(map(torch.equal, one, other))


BUSY = [LINEAR, replace(LINEAR, batch=2, in_features=4096), replace(LINEAR, batch=257), CONV, replace(CONV, batch=64),
        replace(CONV, stride=(2, 2))]  # fmt: skip


@pytest.mark.parametrize("busy", BUSY, ids=Problem.describe)
def test_one_and_two_threads_give_the_same_bits(busy: Problem) -> None:
    weight, *tensors = data_of(busy)
    kernel = CppBackend().bind(busy, weight)
    one = results(kernel, *tensors)
    torch.set_num_threads(2)
    assert kernel._threads(kernel._images(tensors[0])) == 2
    assert same_bits(one, results(kernel, *tensors))


def _reversed_dimensions(t: Tensor) -> Tensor:
    axes = list(reversed(range(t.dim())))
    return t.permute(axes).contiguous().permute(axes)


def _every_other(t: Tensor) -> Tensor:
    return torch.stack((t, torch.full_like(t, torch.nan)), -1)[..., 0]


def _channels_last(t: Tensor) -> Tensor:
    return t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t


@pytest.mark.parametrize(
    "layer",
    [LINEAR, replace(LINEAR, batch=1), CONV, replace(CONV, stride=(2, 2)), replace(POINT, stride=(3, 3), height=3)],
    ids=Problem.describe,
)
def test_strides_do_not_change_a_bit(layer: Problem) -> None:
    weight, *tensors = data_of(layer)
    kernel = CppBackend().bind(layer, weight)
    for relayout in (_reversed_dimensions, _every_other, _channels_last):
        assert same_bits(results(kernel, *tensors), results(kernel, *map(relayout, tensors)))
    expanded = [t[:1].expand(t.shape) for t in tensors]
    assert same_bits(results(kernel, *(t.contiguous() for t in expanded)), results(kernel, *expanded))


def test_results_lie_as_their_input_lies() -> None:
    weight, x, grad_output = data_of(CONV)
    kernel = CppBackend().bind(CONV, weight)
    for made in results(kernel, _channels_last(x), grad_output)[:2]:
        assert made.is_contiguous(memory_format=torch.channels_last) and not made.is_contiguous()
    assert all(made.is_contiguous() for made in results(kernel, x, grad_output)[:2])
    weight, x, grad_output = data_of(LINEAR)
    kernel = CppBackend().bind(LINEAR, weight)
    for made in results(kernel, _reversed_dimensions(x), grad_output)[:2]:  # features by batch: nothing is transposed
        assert made.t().is_contiguous()
    assert all(made.is_contiguous() for made in results(kernel, x, grad_output)[:2])


@BOTH
def test_what_another_plan_saved_is_not_used(layer: Problem) -> None:
    weight, x, grad_output = data_of(layer)
    other, kernel = CppBackend(tile=2, block=8).bind(layer, weight), CppBackend(tile=5).bind(layer, weight)
    expected = kernel.backward(x, grad_output)
    _, saved = other.forward_saving(x)
    assert same_bits(expected, kernel.backward(x, grad_output, saved=saved))


def test_what_is_saved_outlives_calls_with_other_sizes_and_values() -> None:
    weight, x, grad_output = data_of(LINEAR)
    kernel = CppBackend().bind(LINEAR, weight)
    expected = kernel.backward(x, grad_output)
    _, saved = kernel.forward_saving(x)
    assert saved is not None
    kernel.set_values(weight.values * 2)
    kernel.forward(torch.full((500, 300), torch.nan))
    kernel.set_values(weight.values)
    assert same_bits(expected, kernel.backward(x, grad_output, saved=saved))


def test_layers_used_in_turn_do_not_meet_in_the_scratch() -> None:
    problems = [LINEAR, CONV, replace(CONV, batch=1), replace(LINEAR, batch=1), replace(CONV, stride=(2, 2)), POINT]
    data = [data_of(problem) for problem in problems]
    kernels = [CppBackend().bind(problem, given[0]) for problem, given in zip(problems, data, strict=True)]
    alone = [results(kernel, *given[1:]) for kernel, given in zip(kernels, data, strict=True)]
    saved = [kernel.forward_saving(given[1]) for kernel, given in zip(kernels, data, strict=True)]
    for index in reversed(range(len(kernels))):
        _, x, grad_output = data[index]
        again = (saved[index][0], *kernels[index].backward(x, grad_output, saved=saved[index][1]))
        assert same_bits(alone[index][3:], again)


WIDE = replace(LINEAR, in_features=1024, out_features=1024, batch=128)
DEEP = replace(CONV, in_features=128, out_features=128, height=16, width=16, batch=64)


@pytest.mark.parametrize("density", [0.1, 0.01])
@pytest.mark.parametrize(
    "typical", [WIDE, replace(WIDE, batch=1), DEEP, replace(DEEP, stride=(2, 2), batch=1)], ids=Problem.describe
)
def test_both_directions_take_at_most_four_times_the_csr(typical: Problem, density: float) -> None:
    torch.manual_seed(0)
    dense = torch.randn(typical.weight_shape)
    weight = SparseWeight.from_dense(dense, torch.rand(dense.shape) < density)
    kernel = CppBackend().bind(typical, weight)
    csr = sum(part.numel() * part.element_size() for part in (weight.indptr, weight.indices, weight.values))
    for batch, plans in ((typical.batch, 1), (2, 2), (17, 2), (typical.batch, 2)):  # a second plan is kept, no third
        called = replace(typical, batch=batch)
        x, grad_output = torch.zeros(called.input_shape), torch.zeros(called.output_shape)
        kernel.forward(x)
        kernel.backward(x, grad_output)
        assert kernel.nbytes <= plans * 4 * csr


def test_no_images_at_all_leave_nothing_behind() -> None:
    for problem in (LINEAR, CONV):
        weight, x, grad_output = data_of(problem)
        kernel = CppBackend().bind(problem, weight)
        expected = results(kernel, x, grad_output)
        kernel = CppBackend().bind(problem, weight)
        torch.set_num_threads(2)
        assert kernel.forward(x[:0]).shape == (0, *problem.output_shape[1:])
        grad_input, grad_values = kernel.backward(x[:0], grad_output[:0])
        assert grad_input is not None and grad_input.shape == x[:0].shape
        assert grad_values is not None and torch.equal(grad_values, torch.zeros(weight.nnz))
        assert same_bits(expected, results(kernel, x, grad_output))
