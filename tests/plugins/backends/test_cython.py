"""The `cython` backend against dense float64: odd geometries, layouts, dtypes, threads, and its errors."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparsebench.builtin.backends._cython import CythonBackend, CythonKernel
from sparsebench.errors import ProblemError
from sparsebench.plugin import Problem, SparseWeight

BACKEND = CythonBackend()
LINEAR = Problem(op="linear", in_features=64, out_features=33, batch=16, sparsity=0.7)
CONV = Problem(op="conv2d", in_features=3, out_features=8, kernel_size=(3, 3), padding=(1, 1), height=9, width=7,
               batch=2, sparsity=0.7)  # fmt: skip
ODD = [
    replace(LINEAR, in_features=1, out_features=1, batch=1, sparsity=0.0),
    replace(LINEAR, batch=100),
    replace(LINEAR, in_features=20, batch=257),  # more than is packed together
    replace(LINEAR, in_features=3000, out_features=4, batch=200),
    replace(CONV, batch=19),
    replace(CONV, kernel_size=(1, 1), batch=16),  # padding around a kernel that needs none
    replace(CONV, kernel_size=(1, 1), padding=(0, 0), stride=(2, 3)),  # most phases are never met
    replace(CONV, kernel_size=(5, 2), padding=(0, 3), stride=(1, 2), dilation=(2, 1)),
    replace(CONV, kernel_size=(2, 3), padding=(1, 0), stride=(3, 2), in_features=6, out_features=4, groups=2),
    replace(CONV, kernel_size=(9, 7), padding=(0, 0)),  # one output
    replace(CONV, kernel_size=(3, 9), padding=(1, 5), height=1, width=1),  # more padding than pixels
    replace(CONV, in_features=64, height=33, width=33, batch=20, sparsity=0.95),  # several parts, several blocks
]
BOTH = pytest.mark.parametrize("layer", [LINEAR, CONV], ids=["linear", "conv2d"])


def data_of(problem: Problem, density: float = 0.3) -> tuple[SparseWeight, Tensor, Tensor]:
    """(weight, x, grad_output), seeded."""
    torch.manual_seed(0)
    dtype = getattr(torch, problem.dtype)
    weight = torch.randn(problem.weight_shape, dtype=dtype)
    x, grad_output = torch.randn(problem.input_shape, dtype=dtype), torch.randn(problem.output_shape, dtype=dtype)
    return SparseWeight.from_dense(weight, torch.rand(weight.shape) < density), x, grad_output


def results(problem: Problem, weight: SparseWeight, x: Tensor, grad_output: Tensor) -> tuple[Tensor, Any, Any]:
    kernel = BACKEND.bind(problem, weight)
    return kernel.forward(x), *kernel.backward(x, grad_output)


def same_bits(one: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> bool:
    return all(map(torch.equal, one, other))


def test_right(check: Callable[..., None], problem: Problem) -> None:
    check(BACKEND, problem)
    check(BACKEND, replace(problem, dtype="float64"))


def test_rules(rule: Callable[..., None]) -> None:
    rule(BACKEND)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("odd", ODD, ids=Problem.describe)
def test_odd_geometries(check: Callable[..., None], odd: Problem, dtype: str) -> None:
    check(BACKEND, replace(odd, dtype=dtype))


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_convolution(check: Callable[..., None], data: st.DataObject) -> None:
    def pair(low: int, high: int) -> tuple[int, int]:
        return data.draw(st.tuples(st.integers(low, high), st.integers(low, high)))

    groups, (per_in, per_out) = data.draw(st.integers(1, 3)), pair(1, 4)
    kernel, dilation, padding = pair(1, 4), pair(1, 3), pair(0, 3)
    height, width = (
        max(1, d * (k - 1) + 1 - 2 * p) + extra
        for d, k, p, extra in zip(dilation, kernel, padding, pair(0, 6), strict=True)
    )
    check(BACKEND, Problem(
        op="conv2d", in_features=groups * per_in, out_features=groups * per_out, groups=groups, kernel_size=kernel,
        dilation=dilation, padding=padding, stride=pair(1, 4), height=height, width=width,
        batch=data.draw(st.sampled_from([1, 2, 7, 16, 18])), sparsity=data.draw(st.sampled_from([0.0, 0.8, 0.99])),
    ))  # fmt: skip


class OneSignWrong(CythonBackend):
    """Right but for the sign of one number in one result."""

    def __init__(self, result: int | None) -> None:
        super().__init__()
        self.result = result

    def bind(self, problem: Problem, weight: SparseWeight) -> CythonKernel:
        kernel = super().bind(problem, weight)
        forward, backward = kernel.forward, kernel.backward

        def flip(result: Tensor, index: int) -> Tensor:
            if index == self.result:
                result.view(-1)[result.abs().argmax()] *= -1
            return result

        kernel.forward = lambda *args: flip(forward(*args), 0)  # type: ignore[method-assign]
        kernel.backward = lambda *args: tuple(  # type: ignore[method-assign]
            flip(result, 1 + i) for i, result in enumerate(backward(*args))
        )
        return kernel


@BOTH
def test_the_comparison_fails_for_one_wrong_sign(check: Callable[..., None], layer: Problem) -> None:
    check(OneSignWrong(None), layer)
    for result, name in enumerate(["forward", "grad_input", "grad_values"]):
        with pytest.raises(AssertionError, match=f"{name} is off"):
            check(OneSignWrong(result), layer)


@pytest.mark.parametrize("odd", [LINEAR, ODD[2], ODD[3], CONV, ODD[4], ODD[-1]], ids=Problem.describe)
def test_one_and_two_threads_give_the_same_bits(odd: Problem) -> None:
    data = data_of(odd)
    one = results(odd, *data)
    torch.set_num_threads(2)
    assert same_bits(one, results(odd, *data))


@pytest.mark.parametrize("odd", [LINEAR, ODD[1], replace(CONV, stride=(2, 2)), ODD[-1]], ids=Problem.describe)
def test_strides_do_not_change_a_bit(odd: Problem) -> None:
    weight, *tensors = data_of(odd)
    expected = results(odd, weight, *tensors)
    for relayout in (_reversed_dimensions, _every_other, _channels_last):
        assert same_bits(expected, results(odd, weight, *map(relayout, tensors)))


def _reversed_dimensions(t: Tensor) -> Tensor:
    axes = list(reversed(range(t.dim())))
    return t.permute(axes).contiguous().permute(axes)


def _every_other(t: Tensor) -> Tensor:
    return torch.stack((t, torch.full_like(t, float("nan"))), -1)[..., 0]


def _channels_last(t: Tensor) -> Tensor:
    return t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t


def test_channels_last_in_channels_last_out() -> None:
    weight, x, grad_output = data_of(CONV)
    last = results(CONV, weight, _channels_last(x), grad_output)[:2]
    assert all(t.is_contiguous(memory_format=torch.channels_last) and not t.is_contiguous() for t in last)
    assert all(t.is_contiguous() for t in results(CONV, weight, x, grad_output)[:2])


@BOTH
def test_a_full_weight_is_the_dense_layer(layer: Problem) -> None:
    weight, x, _ = data_of(layer, density=1.0)
    dense = F.linear(x, weight.to_dense()) if layer is LINEAR else F.conv2d(x, weight.to_dense(), padding=1)
    assert torch.allclose(BACKEND.bind(layer, weight).forward(x), dense, atol=1e-4)


def test_an_infinity_reaches_its_outputs_and_no_others() -> None:
    weight, x, _ = data_of(replace(CONV, stride=(2, 2)), density=0.1)
    x[1, 2, 4, 3] = torch.inf
    touched = F.conv2d((~x.isfinite()).float(), weight.mask().float(), None, (2, 2), (1, 1)) > 0
    out = BACKEND.bind(replace(CONV, stride=(2, 2)), weight).forward(x)
    assert touched.any()
    assert torch.equal(~out.isfinite(), touched)


@BOTH
def test_later_changes_of_the_given_values_do_not_reach_the_kernel(layer: Problem) -> None:
    weight, x, _ = data_of(layer)
    kernel = BACKEND.bind(layer, weight)
    before = kernel.forward(x)
    weight.values.zero_()
    assert torch.equal(kernel.forward(x), before)


def test_more_sizes_than_are_kept_and_no_images_at_all() -> None:
    weight, *_ = data_of(CONV)
    kernel = BACKEND.bind(CONV, weight)
    for height in [*range(3, 15), 3]:
        x = torch.randn(1, 3, height, 5)
        assert torch.allclose(kernel.forward(x), F.conv2d(x, weight.to_dense(), padding=1), atol=1e-5)
    none = torch.zeros(0, 3, 9, 7)
    assert kernel.forward(none).shape == (0, 8, 9, 7)
    grad_input, grad_values = kernel.backward(none, kernel.forward(none))
    assert grad_input is not None and grad_input.shape == none.shape
    assert grad_values is not None and torch.equal(grad_values, torch.zeros(weight.nnz))


def test_gradients_are_those_of_finite_differences() -> None:
    problem = replace(ODD[7], dtype="float64")
    weight, x, grad_output = data_of(problem)
    kernel = BACKEND.bind(problem, weight)
    (_, grad_input, grad_values), step = results(problem, weight, x, grad_output), 1e-6
    before = kernel.forward(x)
    for flat in (0, 17, x.numel() - 1):
        moved = x.clone()
        moved.view(-1)[flat] += step
        slope = ((kernel.forward(moved) - before) * grad_output).sum() / step
        assert torch.isclose(slope, grad_input.reshape(-1)[flat], rtol=1e-5, atol=1e-6)
    values = weight.values.clone()
    values[3] += step
    kernel.set_values(values)
    slope = ((kernel.forward(x) - before) * grad_output).sum() / step
    assert torch.isclose(slope, grad_values[3], rtol=1e-5, atol=1e-6)


def test_elements_off_their_alignment_are_copied_first() -> None:
    weight, x, _ = data_of(LINEAR)
    odd = torch.frombuffer(bytearray(4 * x.numel() + 2), dtype=torch.float32, offset=2, count=x.numel())
    odd = odd.view(x.shape).copy_(x)
    kernel = BACKEND.bind(LINEAR, weight)
    assert odd.data_ptr() % 4
    assert torch.equal(kernel.forward(odd), kernel.forward(x))


def test_what_does_not_fit_is_a_typed_error() -> None:
    weight, x, grad_output = data_of(CONV)
    kernel = BACKEND.bind(CONV, weight)
    with pytest.raises(ProblemError, match=r"takes torch.float32 \[batch, 3, height, width\]"):
        kernel.forward(x.double())
    with pytest.raises(ProblemError, match=r"x is torch.float32 \(2, 2, 9, 7\)"):
        kernel.forward(x[:, :2])
    with pytest.raises(ProblemError, match="smaller than the window"):
        BACKEND.bind(ODD[9], data_of(ODD[9])[0]).forward(torch.zeros(1, 3, 2, 2))
    with pytest.raises(ProblemError, match="grad_output is"):
        kernel.backward(x, grad_output[:, :, 1:])
    with pytest.raises(ProblemError, match="values are"):
        kernel.set_values(torch.zeros(weight.nnz + 1))


def test_unsupported_names_what_it_cannot_do() -> None:
    assert BACKEND.unsupported(ODD[7]) is None
    huge = Problem(op="conv2d", in_features=64, out_features=1, height=2**13, width=2**12)
    assert "2**30" in (BACKEND.unsupported(huge) or "")
