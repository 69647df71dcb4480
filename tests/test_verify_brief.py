"""Verification in brief, of a kernel that has passed all of it in another process: the essentials, and nothing else."""

from __future__ import annotations

from torch import Tensor

from sparsebench.oracle import make_oracle
from sparsebench.problem import Problem
from sparsebench.testing.honest import HonestKernel
from sparsebench.verify import verify_kernel

LINEAR = Problem(op="linear", out_features=20, in_features=33, batch=6, sparsity=0.7, bias=True)


class CountsCalls(HonestKernel):
    calls = 0

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        self.calls += 1
        return super().forward(x, bias)


class IgnoresNewValues(HonestKernel):
    def set_values(self, values: Tensor) -> None: ...


class WrongForward(HonestKernel):
    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        return super().forward(x, bias) * 1.001


def test_one_forward_and_one_backward_are_compared() -> None:
    oracle = make_oracle(LINEAR)
    kernel = CountsCalls(LINEAR, oracle.weight)
    assert verify_kernel(kernel, oracle, brief=True).ok
    assert kernel.calls == 1
    assert not verify_kernel(WrongForward(LINEAR, oracle.weight), oracle, brief=True).ok


def test_what_only_the_whole_examination_sees_it_has_seen_in_the_first_block() -> None:
    oracle = make_oracle(LINEAR)
    blind = IgnoresNewValues(LINEAR, oracle.weight)
    assert verify_kernel(blind, oracle, brief=True).ok
    assert not verify_kernel(blind, oracle).ok
