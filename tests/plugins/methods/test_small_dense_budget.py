"""How narrow small-dense is: the most channels whose weights are within what the allocator keeps in all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from sparsebench.builtin.methods._channels import Channels
from sparsebench.builtin.methods._small_dense import SmallDense
from sparsebench.errors import BudgetError
from sparsebench.pruning.host import Host

Made = Callable[[], Any]
WIDTHS = (24, 16)
SPARSITIES = [0.0, 0.02, 0.3, 0.5, 0.8, 0.9, 0.95]


def mlp() -> nn.Module:
    first, second = WIDTHS
    return nn.Sequential(nn.Linear(12, first), nn.ReLU(), nn.Linear(first, second), nn.Tanh(), nn.Linear(second, 3))


def weights_of(first: int, second: int) -> int:
    return 12 * first + first * second + second * 3


def begun(make: Made, host_of: Any, sparsity: float, allocator: str) -> Host:
    host: Host = host_of("small-dense", sparsity, allocator, method=make(), model=mlp())
    host.begin()
    return host


def keeps_as_much_as_it_may(make: Made, host_of: Any, sparsity: float, allocator: str) -> None:
    """The most that any share of both widths gives within the budget, by trying all."""
    host, best = begun(make, host_of, sparsity, allocator), 0
    for thousandth in range(1, 48_001):
        count = weights_of(*(max(1, width * thousandth // 48_000) for width in WIDTHS))
        best = count if best < count <= host.ctx.budgets().total else best
    assert sum(int(mask.sum()) for mask in host.masks.values()) == best > 0


def is_within_a_channel_of_it(make: Made, host_of: Any, sparsity: float, allocator: str) -> None:
    """Never more than others keep in all, and not so much less that every layer could have another channel."""
    host = begun(make, host_of, sparsity, allocator)
    total, found = host.ctx.budgets().total, sum(int(mask.sum()) for mask in host.masks.values())
    widths = [int(host.masks[name].any(1).sum()) for name in ("0.weight", "2.weight")]
    assert found == weights_of(*widths) <= total < weights_of(*(width + 1 for width in widths))


class TwoLess(SmallDense):
    @staticmethod
    def share(ctx: Any, channels: Channels) -> float:
        return SmallDense.share(ctx, channels) - 2 / 16


class OneMore(SmallDense):
    @staticmethod
    def share(ctx: Any, channels: Channels) -> float:
        return SmallDense.share(ctx, channels) + 1 / 16


class BySparsity(SmallDense):
    """The fault: what the allocator keeps dense is left out of the count."""

    @staticmethod
    def share(ctx: Any, channels: Channels) -> float:
        size = sum(weight.numel() for weight in ctx.prunable.values())
        fits = [k / 48 for k in range(2, 49) if weights_of(*(w * k // 48 for w in WIDTHS)) <= (1 - ctx.sparsity) * size]
        return max(fits)


ORACLES = [keeps_as_much_as_it_may, is_within_a_channel_of_it]


@pytest.mark.parametrize("oracle", ORACLES, ids=lambda value: value.__name__)
@pytest.mark.parametrize("allocator", ["erk", "uniform", "global"])
@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_it_keeps_as_much_as_it_may(
    sparsity: float, allocator: str, oracle: Callable[..., None], host_of: Callable[..., Host]
) -> None:
    if sparsity == 0 and oracle is is_within_a_channel_of_it:
        sparsity = 0.01  # a whole network has no other channel
    oracle(SmallDense, host_of, sparsity, allocator)


@pytest.mark.parametrize("oracle", ORACLES, ids=lambda value: value.__name__)
@pytest.mark.parametrize("broken", [TwoLess, OneMore, BySparsity])
def test_another_width_is_found(broken: Made, oracle: Callable[..., None], host_of: Callable[..., Host]) -> None:
    with pytest.raises(AssertionError):
        oracle(broken, host_of, 0.5, "uniform")


def test_layers_that_uniform_keeps_dense_are_counted(host_of: Callable[..., Host]) -> None:
    """The first and the last with 336 weights, and 0.1 of 384: more than 0.1 of all 720."""
    host = begun(SmallDense, host_of, 0.9, "uniform")
    assert host.ctx.budgets().total == 288 + 48 + 38
    assert 72 < sum(int(mask.sum()) for mask in host.masks.values()) <= 374


def test_a_budget_that_one_channel_a_layer_exceeds_is_refused(host_of: Callable[..., Host]) -> None:
    with pytest.raises(BudgetError, match=r"keeps 16 of 720 weights.*allows 14"):
        begun(SmallDense, host_of, 0.98, "global")
