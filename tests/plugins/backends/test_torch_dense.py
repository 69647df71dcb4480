"""The dense baseline: right in both layouts and three precisions, and the twin that shows these checks can fail."""

from dataclasses import replace

import pytest
import torch

from sparsebench.builtin.backends import _torch_dense
from sparsebench.builtin.backends._torch_dense import TorchDense, TorchDenseBfloat16
from sparsebench.plugin import Problem, SparseWeight

CONV = Problem(op="conv2d", out_features=16, in_features=8, kernel_size=(3, 3), padding=(1, 1), batch=4, height=16,
               width=16)  # fmt: skip

LINEAR = Problem(op="linear", out_features=33, in_features=17, batch=5, sparsity=0.7)


@pytest.mark.parametrize("layout", ["nchw", "channels-last"])
def test_right(check, problem, layout) -> None:
    check(TorchDense(layout), problem)
    check(TorchDense(layout), replace(problem, dtype="float64"))


@pytest.mark.parametrize("layout", ["nchw", "channels-last"])
def test_right_in_bfloat16(check, problem, layout) -> None:
    check(TorchDenseBfloat16(layout), problem, "bfloat16")


@pytest.mark.parametrize("layout", ["nchw", "channels-last"])
def test_rules(rule, layout) -> None:
    rule(TorchDense(layout))


def weight_of(problem: Problem) -> SparseWeight:
    return SparseWeight.from_dense(torch.ones(problem.weight_shape))


@pytest.mark.parametrize(("winner", "memory_format"), [("nchw", None), ("channels-last", "channels-last")])
def test_the_faster_layout_is_kept_and_said(monkeypatch, winner, memory_format) -> None:
    _torch_dense.faster_layout.cache_clear()
    monkeypatch.setattr(_torch_dense, "fastest", lambda runs: winner if len(runs) == 2 else "")
    kernel = TorchDense().bind(CONV, weight_of(CONV))
    _torch_dense.faster_layout.cache_clear()
    assert kernel.memory_format == memory_format
    assert kernel.note.lower() == winner
    assert kernel.weight.is_contiguous(memory_format=_torch_dense._FORMATS[winner])


def test_the_race_is_run_once_for_a_geometry_and_never_for_a_tiny_one(monkeypatch) -> None:
    _torch_dense.faster_layout.cache_clear()
    races = []
    monkeypatch.setattr(_torch_dense, "fastest", lambda runs: races.append(runs) or "channels-last")
    for problem in (CONV, replace(CONV, sparsity=0.5, bias=True), replace(CONV, batch=1, height=2, width=2)):
        TorchDense().bind(problem, weight_of(problem))
    _torch_dense.faster_layout.cache_clear()
    assert len(races) == 1


def test_a_real_race_leaves_the_random_state_alone() -> None:
    _torch_dense.faster_layout.cache_clear()
    state = torch.get_rng_state()
    assert TorchDense().bind(CONV, weight_of(CONV)).note.startswith(("NCHW", "channels-last"))
    assert torch.equal(torch.get_rng_state(), state)


def test_no_gradient_that_is_not_needed_is_computed() -> None:
    seen = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.append((str(function), args))
            return function(*args, **(kwargs or {}))

    kernel = TorchDense("nchw").bind(CONV, weight_of(CONV))
    with Watch():
        kernel.backward(torch.ones(CONV.input_shape), torch.ones(CONV.output_shape), (True, False))
    masks = [args[-1] for name, args in seen if name.startswith("aten.convolution_backward")]
    assert masks == [[True, False, False]]


class Broken(TorchDense):
    """Wrong in one place."""

    def __init__(self, fault: str) -> None:
        super().__init__("nchw")
        self.fault = fault

    def bind(self, problem: Problem, weight: SparseWeight):
        kernel = super().bind(problem, weight)
        forward, backward = kernel.forward, kernel.backward
        match self.fault:
            case "forward":
                kernel.forward = lambda x, bias=None: -forward(x, bias)
            case "grad_input":
                kernel.backward = lambda *args: (-backward(*args)[0], backward(*args)[1])
            case "grad_values":
                kernel.backward = lambda *args: (backward(*args)[0], -backward(*args)[1])
            case "set_values":
                kernel.set_values = lambda values: None
            case "bias":
                kernel.forward = lambda x, bias=None: forward(x)
        return kernel


@pytest.mark.parametrize("fault", ["forward", "grad_input", "grad_values", "set_values", "bias"])
@pytest.mark.parametrize("shape", [LINEAR, CONV], ids=["linear", "conv2d"])
def test_a_wrong_kernel_is_seen(check, shape, fault) -> None:
    check(Broken("none"), shape)
    with pytest.raises(AssertionError):
        check(Broken(fault), shape)


class Careless(TorchDense):
    """Breaks every rule: raw memory, a fixed batch, zeros skipped, a shared buffer, everything computed."""

    def bind(self, problem: Problem, weight: SparseWeight):
        kernel = super().bind(problem, weight)
        forward, backward, empty = kernel.forward, kernel.backward, weight.nnz == 0
        buffer = torch.zeros(problem.output_shape)

        def careless(x, bias=None):
            raw = torch.as_strided(x, x.shape, torch.empty(x.shape).stride()) if x.stride(0) else x * 2
            out = forward(raw.nan_to_num(posinf=0.0), bias).clone()
            return buffer.copy_(out if not empty else out + 1)

        def zeros_dropped(x, grad, needs=(True, True)):
            grad_input, grad_weight = backward(x, grad)
            return grad_input, grad_weight * (kernel.weight != 0)

        kernel.forward, kernel.backward = careless, zeros_dropped
        return kernel


def test_a_careless_kernel_breaks_every_rule(rule) -> None:
    with pytest.raises((AssertionError, RuntimeError)):
        rule(Careless("nchw"))
