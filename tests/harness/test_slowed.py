"""A backend made slower by a known share: the same results, and that much more time."""

from __future__ import annotations

from typing import Any

import pytest

from sparsebench.harness import slowed
from sparsebench.oracle import make_oracle
from sparsebench.problem import Problem
from sparsebench.testing.honest import HonestKernel
from sparsebench.verify import verify_kernel

PROBLEM = Problem(op="linear", out_features=8, in_features=6, batch=4, sparsity=0.5)


class Clock:
    """Every look takes a nanosecond; a call of the kernel a million."""

    now = 0

    def perf_counter_ns(self) -> int:
        self.now += 1
        return self.now


class Kernel:
    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def set_values(self, values: Any) -> None: ...

    def forward(self, x: Any, bias: Any = None) -> Any:
        self.clock.now += 1_000_000
        return x

    def backward(self, x: Any, grad_output: Any, needs: Any = (True, True)) -> Any:
        self.clock.now += 2_000_000
        return x, grad_output


def test_every_call_takes_so_much_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(slowed, "time", clock)
    kernel = slowed._SlowedKernel(Kernel(clock), 0.06)
    assert kernel.forward("x") == "x"
    assert clock.now == pytest.approx(1_060_000, abs=10)
    assert kernel.backward("x", "g") == ("x", "g")
    assert clock.now == pytest.approx(3 * 1_060_000, abs=20)


class Saving(Kernel):
    memory_format = "channels-last"

    def forward_saving(self, x: Any, bias: Any = None) -> Any:
        return self.forward(x, bias), "packed"

    def backward(self, x: Any, grad_output: Any, needs: Any = (True, True), saved: Any = None) -> Any:
        self.clock.now += 1_000_000 if saved == "packed" else 2_000_000
        return x, grad_output


def test_what_forward_saved_reaches_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or backward would pack again, and be slower by more than was asked for."""
    clock = Clock()
    monkeypatch.setattr(slowed, "time", clock)
    kernel = slowed._SlowedKernel(Saving(clock), 0.06)
    out, saved = kernel.forward_saving("x")
    assert out == "x" and kernel.backward("x", "g", (True, True), saved) == ("x", "g")
    assert clock.now == pytest.approx(2 * 1_060_000, abs=20)
    assert kernel.memory_format == "channels-last", "or it would be fed another layout"
    assert not hasattr(slowed._SlowedKernel(Kernel(clock), 0.06), "forward_saving")


def test_it_is_as_right_as_what_it_slows() -> None:
    oracle = make_oracle(PROBLEM)
    assert verify_kernel(slowed._SlowedKernel(HonestKernel(PROBLEM, oracle.weight), 0.06), oracle).ok


def test_it_is_the_backend_that_was_named() -> None:
    backend = slowed.Slowed(inner="sparsebench.builtin.backends._cython:CythonBackend", percent=6)
    oracle = make_oracle(PROBLEM)
    assert type(backend.bind(PROBLEM, oracle.weight).inner).__module__.endswith("_cython")
    assert backend.unsupported(PROBLEM) is None
