"""STR's soft threshold: the formula, its gradient, and where it is dense."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sparsebench.builtin.methods._str import SoftThreshold


def weights() -> Tensor:
    return torch.randn(12, 7, generator=torch.Generator().manual_seed(0)) * 0.2


def is_the_formula(make: Callable[[float], Any]) -> None:
    """Number by number, in Python's arithmetic."""
    for s in (-6.0, -2.5, -1.0, 0.5):
        found = make(s)(weights()).detach().flatten().tolist()
        threshold = 1 / (1 + math.exp(-s))
        expected = [math.copysign(max(abs(w) - threshold, 0), w) for w in weights().flatten().tolist()]
        assert all(abs(a - b) < 1e-6 for a, b in zip(found, expected, strict=True))
        assert sum(a == 0 for a in found) == sum(b == 0 for b in expected)


def has_the_gradient(make: Callable[[float], Any]) -> None:
    """dL/ds = -sigmoid'(s) times the sum of sign(W) dL/dW_eff where W_eff is not 0."""
    function, weight = make(-2.0), weights()
    effective = function(weight)
    upstream = torch.randn(effective.shape, generator=torch.Generator().manual_seed(1))
    (effective * upstream).sum().backward()
    threshold = 1 / (1 + math.exp(2.0))
    on_support = (weight.sign() * upstream)[weight.abs() > threshold].double().sum()
    expected = -threshold * (1 - threshold) * float(on_support)
    assert abs(float(function.s.grad) - expected) < 1e-5


def is_dense_far_below(make: Callable[[float], Any]) -> None:
    """The threshold is 0 in float32 there, and so is its gradient: only decay gets it out."""
    function = make(-200.0)
    effective = function(weights())
    effective.sum().backward()
    assert torch.equal(effective, weights())
    assert float(function.s.grad) == 0


def prunes_more_for_a_higher_threshold(make: Callable[[float], Any]) -> None:
    counts = [int((make(s)(weights()) == 0).sum()) for s in (-9.0, -4.0, -3.0, -2.0, -1.0, 0.0, 5.0)]
    assert counts == sorted(counts)
    assert counts[0] < counts[2] < counts[4] < counts[-1]


class Hard(SoftThreshold):
    def forward(self, weight: Tensor) -> Tensor:
        return weight * (weight.abs() > torch.sigmoid(self.s))


class Linear(SoftThreshold):
    """The derivative of the threshold by s is left out."""

    def forward(self, weight: Tensor) -> Tensor:
        threshold = self.s - self.s.detach() + torch.sigmoid(self.s).detach()
        return weight.sign() * torch.relu(weight.abs() - threshold)


class Floor(SoftThreshold):
    def forward(self, weight: Tensor) -> Tensor:
        return weight.sign() * torch.relu(weight.abs() - torch.sigmoid(self.s) - 0.01)


class Upside(SoftThreshold):
    def forward(self, weight: Tensor) -> Tensor:
        return weight.sign() * torch.relu(weight.abs() - torch.sigmoid(-self.s))


@pytest.mark.parametrize(
    ("oracle", "broken"),
    [
        (is_the_formula, Hard),
        (has_the_gradient, Linear),
        (is_dense_far_below, Floor),
        (prunes_more_for_a_higher_threshold, Upside),
    ],
    ids=lambda value: value.__name__,
)
def test_the_function_passes_and_its_twin_fails(oracle: Callable[[Any], None], broken: Any) -> None:
    oracle(SoftThreshold)
    with pytest.raises(AssertionError):
        oracle(broken)
