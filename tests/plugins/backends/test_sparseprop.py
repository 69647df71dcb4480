"""The SparseProp adapter: against the real library where it is installed, and a stand-in that is as particular.

The stand-in takes what SparseProp takes: contiguous float32 memory, index arrays in its format, for conv2d over
the batch a batch in whole vectors (the real one is silently wrong otherwise), for its transpose aligned blocks of 16.
"""

import sys
from dataclasses import replace
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sparsebench.builtin.backends import _sparseprop
from sparsebench.builtin.backends._sparseprop import SparseProp
from sparsebench.errors import UnsupportedError
from sparsebench.plugin import Problem, SparseWeight

CONV = Problem(op="conv2d", out_features=8, in_features=8, kernel_size=(3, 3), padding=(1, 1), batch=4, height=8,
               width=8)  # fmt: skip
LINEAR = Problem(op="linear", out_features=8, in_features=16, batch=4)
INSTALLED = find_spec("sparseprop") is not None


def memory(*arrays: np.ndarray) -> list[torch.Tensor]:
    assert all(array.flags.c_contiguous and array.dtype == np.float32 for array in arrays)
    return [torch.from_numpy(array) for array in arrays]


def transpose(source: np.ndarray, target: np.ndarray, block: int) -> None:
    (rows, columns), _ = source.shape, memory(source, target)
    assert rows % block == columns % block == 0 and source.ctypes.data % 16 == target.ctypes.data % 32 == 0
    target[:] = source.T


def matrix(indptr: np.ndarray, indices: np.ndarray, values: np.ndarray, columns: int) -> torch.Tensor:
    assert indptr.dtype == indices.dtype == np.int32
    crow, col, data = (torch.from_numpy(part) for part in (indptr, indices, values))
    return SparseWeight((len(indptr) - 1, columns), crow, col, data).to_dense()


def linear_forward(x, indptr, indices, values, out) -> None:
    x, out = memory(x, out)
    out += matrix(indptr, indices, values, x.shape[0]) @ x


def linear_backward(x, indptr, indices, values, grad, grad_input, grad_values) -> None:
    x, grad, grad_input = memory(x, grad, grad_input)
    dense = matrix(indptr, indices, values, x.shape[0])
    grad_input += dense.t() @ grad
    rows = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    grad_values += (grad @ x.t()).numpy()[rows, indices]


def positions(index: tuple, kernel: int) -> tuple[np.ndarray, ...]:
    """Row, channel, y and x of every non-zero, from SparseProp's index arrays."""
    starts, channel_starts, ky, kx = index
    assert [part.dtype for part in index] == [np.int32, np.int16, np.uint8, np.uint8]
    rows = len(starts) - 1
    counts = np.diff(channel_starts.reshape(rows, -1), axis=1)
    assert (counts.sum(1) == np.diff(starts)).all() and max(ky.max(), kx.max()) < kernel
    row, channel = np.indices(counts.shape)
    return np.repeat(row, counts.reshape(-1)), np.repeat(channel, counts.reshape(-1)), ky, kx


def convolution(over_row: bool, stride: int):
    """(forward, backward) of the stand-in."""

    def images(*arrays: np.ndarray) -> list[torch.Tensor]:
        assert over_row or all(array.shape[3] % 8 == 0 for array in arrays)
        return [one if over_row else one.permute(3, 0, 1, 2) for one in memory(*arrays)]

    def dense(index: tuple, values: np.ndarray, kernel: int, channels: int) -> torch.Tensor:
        weight = np.zeros((len(index[0]) - 1, channels, kernel, kernel), np.float32)
        weight[positions(index, kernel)] = values
        return torch.from_numpy(weight)

    def forward(x, a, b, c, d, values, out, kernel, padding) -> None:
        x, out = images(x, out)
        out += torch.conv2d(x, dense((a, b, c, d), values, kernel, x.shape[1]), None, stride, padding)

    def backward(x, a, b, c, d, values, grad, grad_input, grad_values, kernel, padding) -> None:
        x, grad, grad_input = images(x, grad, grad_input)
        x, weight = x.clone().requires_grad_(), dense((a, b, c, d), values, kernel, x.shape[1]).requires_grad_()
        with torch.enable_grad():
            out = torch.conv2d(x, weight, None, stride, padding)
            gradients = torch.autograd.grad(out, (x, weight), grad)
        grad_input += gradients[0]
        grad_values += gradients[1].numpy()[positions((a, b, c, d), kernel)]

    return forward, backward


def stand_in() -> SimpleNamespace:
    functions = {
        "transpose": transpose,
        "sparse_linear_vectorized_forward": linear_forward,
        "sparse_linear_vectorized_backward": linear_backward,
    }
    for name, over_row, stride in (("over_on_stride_1", True, 1), ("stride_1", False, 1), ("stride_2", False, 2)):
        forward, backward = convolution(over_row, stride)
        functions[f"sparse_conv2d_vectorized_forward_{name}"] = forward
        functions[f"sparse_conv2d_vectorized_backward_{name}"] = backward
    return SimpleNamespace(backend=SimpleNamespace(**functions))


@pytest.fixture(params=["stand-in", "real"] if INSTALLED else ["stand-in"])
def library(request, monkeypatch):
    if request.param == "stand-in":
        monkeypatch.setitem(sys.modules, "sparseprop", stand_in())


@pytest.fixture(params=["batch", "row"])
def vectorized(request, monkeypatch):
    monkeypatch.setattr(_sparseprop, "fastest", lambda runs: request.param)


@pytest.mark.usefixtures("library", "vectorized")
def test_right_or_unsupported(check, problem) -> None:
    backend = SparseProp()
    if backend.unsupported(problem) is None:
        check(backend, problem)
    else:
        assert problem.op == "conv2d"


@pytest.mark.usefixtures("library", "vectorized")
def test_rules(rule) -> None:
    rule(SparseProp())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"groups": 2}, "NaN for groups"),
        ({"dilation": (2, 2)}, "ignores dilation"),
        ({"stride": (2, 1)}, "stride 1 and 2 only"),
        ({"stride": (3, 3)}, "stride 1 and 2 only"),
        ({"padding": (1, 0)}, "one padding"),
        ({"kernel_size": (1, 3)}, "not square"),
        ({"dtype": "float64"}, "float64 into float32"),
        ({"in_features": 4096}, "16 bits"),
        ({"in_features": 1024, "out_features": 1024, "sparsity": 0.8}, "on the stack"),
        ({"batch": 2**22, "height": 8, "width": 8}, "32-bit"),
    ],
)
def test_what_it_gets_wrong_is_unsupported_and_said(change, reason) -> None:
    assert reason in (SparseProp().unsupported(replace(CONV, **change)) or "")


@pytest.mark.parametrize("problem_", [CONV, LINEAR, replace(CONV, stride=(2, 2)), replace(CONV, padding=(0, 0))])
def test_the_rest_is_supported(problem_) -> None:
    assert SparseProp().unsupported(problem_) is None


@pytest.mark.usefixtures("library")
def test_a_weight_denser_than_the_problem_said_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(_sparseprop, "_MAX_CONV_NNZ", 100)
    with pytest.raises(UnsupportedError, match="on the stack"):
        SparseProp().bind(CONV, SparseWeight.from_dense(torch.ones(CONV.weight_shape)))


@pytest.mark.usefixtures("library")
def test_the_faster_vectorization_is_said_and_only_stride_1_has_a_choice(monkeypatch) -> None:
    raced = []
    monkeypatch.setattr(_sparseprop, "fastest", lambda runs: raced.append(set(runs)) or "row")
    weight = SparseWeight.from_dense(torch.ones(CONV.weight_shape))
    assert "output row" in SparseProp().bind(CONV, weight).note
    assert "batch" in SparseProp().bind(replace(CONV, stride=(2, 2)), weight).note
    assert raced == [{"batch", "row"}]


def test_the_stand_in_is_particular(check, problem, monkeypatch) -> None:
    """The twin: an adapter that hands memory over as it comes does not get through."""
    monkeypatch.setitem(sys.modules, "sparseprop", stand_in())
    monkeypatch.setattr(_sparseprop, "fastest", lambda runs: "batch")
    monkeypatch.setattr(_sparseprop.SparsePropConv2d, "_pack", lambda self, images: images.permute(1, 2, 3, 0))
    monkeypatch.setattr(_sparseprop.SparsePropLinear, "_transposed", lambda self, matrix: matrix.t())
    if SparseProp().unsupported(problem) is None and problem.batch > 1:
        with pytest.raises(AssertionError):
            check(SparseProp(), problem)
