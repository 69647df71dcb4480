"""What every backend is held to: a grid of problems against dense float64, and rules about special cases.

`problem` and `rule` are parameters of any test here that names them; `check(backend, problem)` and
`rule(backend)` raise `AssertionError` with what is wrong.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sparsebench.plugin import Backend, Kernel, Problem, SparseWeight

LINEAR = Problem(op="linear", out_features=33, in_features=17, batch=5, sparsity=0.7)
CONV = Problem(op="conv2d", out_features=12, in_features=8, kernel_size=(3, 3), padding=(1, 1), batch=3,
               height=9, width=8, sparsity=0.8)  # fmt: skip
PROBLEMS = [
    LINEAR,
    replace(LINEAR, batch=1, sparsity=0.95, threads=2),
    replace(LINEAR, in_features=64, out_features=48, batch=32, sparsity=0.9),
    replace(LINEAR, sparsity=0.0),
    CONV,
    replace(CONV, batch=8, height=8, stride=(2, 2)),
    replace(CONV, batch=1, padding=(0, 0), width=30),
    replace(CONV, kernel_size=(1, 1), padding=(0, 0), stride=(2, 2)),
    replace(CONV, kernel_size=(1, 3), padding=(0, 2), stride=(2, 1)),
    replace(CONV, dilation=(2, 2), padding=(2, 2)),
    replace(CONV, groups=4, sparsity=0.5),
    replace(CONV, groups=4, in_features=4, sparsity=0.5),
    replace(CONV, sparsity=0.0),
]
EPS = {"float32": 2.0**-23, "float64": 2.0**-52, "bfloat16": 2.0**-8}


def make_weight(problem: Problem) -> SparseWeight:
    generator = torch.Generator().manual_seed(1)
    dense = torch.randn(problem.weight_shape, generator=generator, dtype=getattr(torch, problem.dtype))
    mask = torch.rand(problem.weight_shape, generator=generator) >= problem.sparsity
    return SparseWeight.from_dense(dense, mask)


def normal(shape: tuple[int, ...], dtype: str = "float32", seed: int = 2) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=getattr(torch, dtype))


def dense_op(problem: Problem, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if problem.op == "linear":
        return torch.nn.functional.linear(x, weight, bias)
    p = problem
    return torch.nn.functional.conv2d(x, weight, bias, p.stride, p.padding, p.dilation, p.groups)


def references(
    problem: Problem, weight: SparseWeight, x: Tensor, grad: Tensor, bias: Tensor | None
) -> tuple[Tensor, ...]:
    """Output, grad_input and the gradient of the dense weight, in float64 by torch's autograd."""
    x, dense = x.double().requires_grad_(), weight.to_dense().double().requires_grad_()
    with torch.enable_grad():
        out = dense_op(problem, x, dense, None if bias is None else bias.double())
        grad_input, grad_weight = torch.autograd.grad(out, (x, dense), grad.double())
    return out.detach(), grad_input, grad_weight


def values_of(kernel: Kernel, weight: SparseWeight, gradient: Tensor | None) -> Tensor:
    assert gradient is not None
    return weight.gather(gradient) if getattr(kernel, "dense_grad", False) else gradient


def close(what: str, got: Tensor, reference: Tensor, size: Tensor, precision: str) -> None:
    """Within the rounding of sums whose terms have the absolute sum `size`, elementwise."""
    assert got.shape == reference.shape, f"{what}: {tuple(got.shape)} instead of {tuple(reference.shape)}"
    error = (got.double() - reference).abs()
    assert bool((error <= 64 * EPS[precision] * size + 1e-12).all()), f"{what} is off by {error.max():.2g}"


def agree(
    kernel: Kernel,
    problem: Problem,
    weight: SparseWeight,
    x: Tensor,
    grad: Tensor,
    bias: Tensor | None = None,
    precision: str = "float32",
) -> None:
    """Forward and both gradients of a kernel, with and without what forward saves, against float64."""
    expected = references(problem, weight, x, grad, bias)
    positive = weight.with_values(weight.values.abs())
    sizes = references(problem, positive, x.abs(), grad.abs(), None if bias is None else bias.abs())
    results = [kernel.forward(x, bias)]
    calls = [{}]
    if hasattr(kernel, "forward_saving"):
        out, saved = kernel.forward_saving(x, bias)
        results.append(out)
        calls.append({"saved": saved})
    for out in results:
        assert out.dtype == x.dtype
        close("forward", out, expected[0], sizes[0], precision)
    for keywords in calls:
        grad_input, gradient = kernel.backward(x, grad, **keywords)
        close("grad_input", grad_input, expected[1], sizes[1], precision)
        values = values_of(kernel, weight, gradient)
        close("grad_values", values, weight.gather(expected[2]), weight.gather(sizes[2]), precision)


@pytest.fixture
def check() -> Callable[..., None]:
    """check(backend, problem, precision): a kernel of the backend is right, also with bias and with second values."""

    def run(backend: Backend, problem: Problem, precision: str | None = None) -> None:
        precision = precision or problem.dtype
        assert backend.unsupported(problem) is None
        weight = make_weight(problem)
        x, grad = normal(problem.input_shape, problem.dtype), normal(problem.output_shape, problem.dtype, 3)
        bias = normal((problem.out_features,), problem.dtype, 4)
        kernel = backend.bind(problem, weight)
        with torch.no_grad():
            agree(kernel, problem, weight, x, grad, None, precision)
            other = weight.with_values(weight.values.flip(0) * 2)
            kernel.set_values(other.values)
            agree(kernel, problem, other, x, grad, bias, precision)

    return run


def rule_any_strides(backend: Backend) -> None:
    for problem in (LINEAR, replace(LINEAR, in_features=32, out_features=32, batch=16), CONV):
        weight, kernel = make_weight(problem), None
        kernel = backend.bind(problem, weight)
        for change in (shifted, doubled, reversed_strides, expanded):
            x, grad = change(normal(problem.input_shape)), change(normal(problem.output_shape, seed=3))
            agree(kernel, problem, weight, x, grad)


def shifted(tensor: Tensor) -> Tensor:
    """The same numbers, contiguous, but one element after a cache line."""
    return torch.cat([tensor.new_zeros(1), tensor.reshape(-1)])[1:].view(tensor.shape)


def doubled(tensor: Tensor) -> Tensor:
    return tensor.repeat_interleave(2, -1)[..., ::2]


def reversed_strides(tensor: Tensor) -> Tensor:
    """Transposed memory; channels-last where there are images."""
    if tensor.dim() == 4:
        return tensor.contiguous(memory_format=torch.channels_last)
    return tensor.t().contiguous().t()


def expanded(tensor: Tensor) -> Tensor:
    return tensor[:1].expand(tensor.shape)


def rule_other_sizes(backend: Backend) -> None:
    for problem in (LINEAR, CONV):
        weight = make_weight(problem)
        kernel = backend.bind(problem, weight)
        for batch in (1, 8, 11):
            other = replace(problem, batch=batch) if problem is LINEAR else replace(problem, batch=batch, height=5)
            agree(kernel, other, weight, normal(other.input_shape), normal(other.output_shape, seed=3))


def rule_empty_pattern(backend: Backend) -> None:
    for problem in (LINEAR, CONV):
        empty = SparseWeight.from_dense(torch.zeros(problem.weight_shape))
        kernel = backend.bind(problem, empty)
        kernel.set_values(torch.zeros(0))
        bias = normal((problem.out_features,), seed=4)
        agree(kernel, problem, empty, normal(problem.input_shape), normal(problem.output_shape, seed=3), bias)


def rule_explicit_zeros(backend: Backend) -> None:
    for problem in (LINEAR, CONV):
        weight = make_weight(problem)
        zeroed = weight.with_values(weight.values * (torch.arange(weight.nnz) % 3 != 0))
        kernel = backend.bind(problem, zeroed)
        x, grad = normal(problem.input_shape), normal(problem.output_shape, seed=3)
        agree(kernel, problem, zeroed, x, grad)
        kernel.set_values(weight.values)
        agree(kernel, problem, weight, x, grad)


def rule_non_finite(backend: Backend) -> None:
    for problem in (LINEAR, CONV):
        weight = make_weight(problem)
        zeroed = weight.with_values(torch.zeros(weight.nnz))
        x = normal(problem.input_shape)
        x[0, 3] = torch.inf
        reached = dense_op(problem, (~x.isfinite()).float(), weight.mask().float()) > 0
        for bound in (weight, zeroed):
            out = backend.bind(problem, bound).forward(x)
            assert not out[reached].isfinite().any(), "a non-finite input did not reach its outputs"


def rule_needs(backend: Backend) -> None:
    for problem in (LINEAR, CONV):
        weight = make_weight(problem)
        kernel = backend.bind(problem, weight)
        x, grad = normal(problem.input_shape), normal(problem.output_shape, seed=3)
        both = kernel.backward(x, grad)
        for needs in ((True, False), (False, True), (False, False)):
            for want, got, full in zip(needs, kernel.backward(x, grad, needs), both, strict=True):
                assert (got is not None) == want, f"needs = {needs}"
                assert got is None or torch.allclose(got, full, rtol=1e-4, atol=1e-4)


def rule_own_memory(backend: Backend) -> None:
    """Inputs keep their content, and results stay what they were when the kernel is called again."""
    for problem in (LINEAR, replace(LINEAR, batch=16), CONV):
        weight = make_weight(problem)
        inputs = (normal(problem.input_shape), normal(problem.output_shape, seed=3))
        inputs += (normal((problem.out_features,), seed=4), weight.values)
        copies = [one.clone() for one in inputs]
        kernel = backend.bind(problem, weight)
        x, grad, bias, _ = inputs
        results = [kernel.forward(x, bias), *kernel.backward(x, grad)]
        kept = [one.clone() for one in results]
        kernel.set_values(weight.values.neg())
        kernel.forward(x * 2, bias)
        kernel.backward(x * 2, grad * 3)
        assert all(map(torch.equal, inputs, copies)), "an input was changed"
        assert all(map(torch.equal, results, kept)), "an earlier result was overwritten"
        for result in results:
            result.fill_(7.0)
        agree(kernel, problem, weight.with_values(weight.values.neg()), x, grad, bias)


RULES = [rule_any_strides, rule_other_sizes, rule_empty_pattern, rule_explicit_zeros, rule_non_finite, rule_needs,
         rule_own_memory]  # fmt: skip


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "problem" in metafunc.fixturenames:
        metafunc.parametrize("problem", PROBLEMS, ids=lambda problem: problem.describe().replace(" ", "-"))
    if "rule" in metafunc.fixturenames:
        metafunc.parametrize("rule", RULES, ids=lambda rule: rule.__name__.removeprefix("rule_"))


@pytest.fixture(autouse=True)
def _no_gradients_one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.no_grad():
        yield
    torch.set_num_threads(threads)
