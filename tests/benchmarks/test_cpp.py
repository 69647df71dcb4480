"""pytest-benchmark of `cpp` on features-by-batch inputs beside oneMKL (forward) and torch's CSR products (gradients).

Nobody transposes anything here: x [in, batch] and grad_output [out, batch] are contiguous, begin on a cache line, and
are passed as transposed views, which all these backends take as they are. One thread, one product, nothing around it.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from sparsebench.builtin.backends._cpp import CppBackend
from sparsebench.builtin.backends._mkl import Mkl
from sparsebench.builtin.backends._mkl_library import find_library
from sparsebench.builtin.backends._torch_csr import TorchCsr
from sparsebench.problem import Problem
from sparsebench.weight import SparseWeight

SIZES = [(1024, 1024, 128), (1024, 1024, 512), (4096, 1024, 64), (3072, 768, 1024)]  # out, in, batch
SPARSITIES = [0.8, 0.9, 0.95]
CONTESTS = [
    ("forward", "cpp"),
    *([("forward", "mkl")] if find_library() else []),
    ("grad_input", "cpp"),
    ("grad_input", "torch-csr"),
    ("grad_weight", "cpp"),
    ("grad_weight", "torch-csr"),
]
BACKENDS = {"cpp": CppBackend, "mkl": Mkl, "torch-csr": TorchCsr}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def features_by_batch(features: int, batch: int) -> Tensor:
    tensor = torch.randn(features, batch)
    assert tensor.is_contiguous() and tensor.data_ptr() % 64 == 0
    return tensor


def products(what: str, backend: str, problem: Problem, sparsity: float) -> tuple[Callable[[], Tensor], Tensor]:
    """(the call to time, what it must give)."""
    torch.manual_seed(0)
    dense = torch.randn(problem.weight_shape)
    weight = SparseWeight.from_dense(dense, torch.rand(dense.shape) >= sparsity)
    x = features_by_batch(problem.in_features, problem.batch)
    grad_output = features_by_batch(problem.out_features, problem.batch)
    kernel: Any = BACKENDS[backend]().bind(problem, weight)
    _, saved = kernel.forward_saving(x.t())
    if what == "forward":
        return lambda: kernel.forward(x.t()).t(), weight.to_dense() @ x
    if what == "grad_input":
        run = lambda: kernel.backward(x.t(), grad_output.t(), (True, False), saved)[0].t()  # noqa: E731
        return run, weight.to_dense().t() @ grad_output
    run = lambda: kernel.backward(x.t(), grad_output.t(), (False, True), saved)[1]  # noqa: E731
    return run, weight.gather(grad_output @ x.t())


@pytest.mark.benchmark(min_rounds=3, max_time=0.03, warmup=True, warmup_iterations=1)
@pytest.mark.parametrize("sparsity", SPARSITIES)
@pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))
@pytest.mark.parametrize(("what", "backend"), CONTESTS, ids=[f"{what}-{backend}" for what, backend in CONTESTS])
def test_speed(benchmark: Any, what: str, backend: str, size: tuple[int, int, int], sparsity: float) -> None:
    out_features, in_features, batch = size
    problem = Problem(op="linear", out_features=out_features, in_features=in_features, batch=batch, sparsity=sparsity)
    run, expected = products(what, backend, problem, sparsity)
    result = run()
    assert result.is_contiguous()
    torch.testing.assert_close(result, expected, rtol=1e-3, atol=1e-3)
    benchmark.group = f"{what} {out_features}x{in_features} batch {batch} at {sparsity}"
    benchmark(run)
    if benchmark.stats is not None:
        flop = 2 * (1 - sparsity) * out_features * in_features * batch
        benchmark.extra_info["useful_gflops"] = flop / benchmark.stats.stats.median / 1e9


def test_the_comparison_fails_for_one_wrong_column() -> None:
    problem = Problem(op="linear", out_features=64, in_features=32, batch=16)
    run, expected = products("forward", "cpp", problem, 0.5)
    expected[:, 3] *= -1
    with pytest.raises(AssertionError):
        torch.testing.assert_close(run(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.benchmark(min_rounds=3, max_time=0.03, warmup=True, warmup_iterations=1)
@pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))
@pytest.mark.parametrize("what", ["first-step", "step", "set_values", "dense-forward"])
def test_cost_around_the_kernel(benchmark: Any, what: str, size: tuple[int, int, int]) -> None:
    """At 0.9. Binding for both directions is first-step less step: what only backward needs is made when it is met."""
    out_features, in_features, batch = size
    problem = Problem(op="linear", out_features=out_features, in_features=in_features, batch=batch, sparsity=0.9)
    torch.manual_seed(0)
    dense, x = torch.randn(out_features, in_features), torch.randn(batch, in_features)
    weight = SparseWeight.from_dense(dense, torch.rand(dense.shape) >= 0.9)
    grad_output, backend = torch.randn(batch, out_features), CppBackend()
    kernel = backend.bind(problem, weight)

    def step(kernel: Any) -> Any:
        kernel.forward(x)
        kernel.backward(x, grad_output)
        return kernel

    step(kernel)
    if what == "first-step":
        kernel = benchmark(lambda: step(backend.bind(problem, weight)))
    elif what == "step":
        benchmark(step, kernel)
    elif what == "set_values":
        benchmark(kernel.set_values, 2 * weight.values)
    else:
        benchmark(torch.nn.functional.linear, x, dense)
    scale = 2.0 if what == "set_values" else 1.0
    torch.testing.assert_close(kernel.forward(x), scale * (x @ weight.to_dense().t()), rtol=1e-4, atol=1e-3)
