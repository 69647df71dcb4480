"""pytest-benchmark of the `cython` backend beside dense torch: for whoever changes the loops, not for verdicts."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sparsebench.builtin.backends._cython import CythonBackend
from sparsebench.problem import Problem
from sparsebench.weight import SparseWeight

PROBLEMS = {
    "linear": Problem(op="linear", in_features=512, out_features=512, batch=64),
    "conv2d": Problem(
        op="conv2d", in_features=64, out_features=64, kernel_size=(3, 3), padding=(1, 1), height=16, width=16, batch=8
    ),
}


@pytest.mark.benchmark(min_rounds=3, max_time=0.1)
@pytest.mark.parametrize("what", ["dense", "forward", "backward"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_speed(benchmark: Callable[..., Any], name: str, what: str) -> None:
    torch.manual_seed(0)
    problem = PROBLEMS[name]
    mask = torch.rand(problem.weight_shape) < 0.1
    weight = SparseWeight.from_dense(torch.randn(problem.weight_shape), mask)
    kernel, dense = CythonBackend().bind(problem, weight), weight.to_dense()
    x, grad_output = torch.randn(problem.input_shape), torch.randn(problem.output_shape)

    def by_torch() -> Tensor:
        return F.linear(x, dense) if problem.op == "linear" else F.conv2d(x, dense, padding=problem.padding)

    run = {
        "dense": by_torch,
        "forward": lambda: kernel.forward(x),
        "backward": lambda: kernel.backward(x, grad_output)[0],
    }[what]
    result = benchmark(run)
    assert torch.allclose(result, by_torch(), atol=1e-3) or what == "backward"
