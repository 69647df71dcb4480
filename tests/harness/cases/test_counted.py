"""A kernel whose calls are counted is the same kernel, and its time is that of its calls."""

import time

import pytest

from sparsebench.harness.cases.counted import Counted


class Kernel:
    dense_grad = True
    note = "seen"

    def forward(self, x: int, bias: int = 0) -> int:
        time.sleep(0.01)
        return x + bias

    def backward(self) -> None:
        time.sleep(0.01)
        raise ValueError("broken")


def test_calls_and_attributes_are_those_of_the_kernel() -> None:
    counted = Counted(Kernel())
    assert (counted.forward(2, bias=3), counted.dense_grad, counted.note) == (5, True, "seen")
    assert not hasattr(counted, "forward_saving")


def test_the_time_is_that_of_the_calls_also_of_those_that_fail() -> None:
    counted = Counted(Kernel())
    assert counted.ns == 0
    counted.forward(1)
    once = counted.ns
    with pytest.raises(ValueError, match="broken"):
        counted.backward()
    assert counted.ns >= once + 10_000_000 >= 20_000_000
