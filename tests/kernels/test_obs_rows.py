"""Rows of a layer together: how many weights each loses, inputs that are always zero, and what is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sparsebench.builtin.methods._obs import Rows, Trace, ranks
from sparsebench.errors import UsageError
from sparsebench.kernels import _obs
from sparsebench.plugin import top_k_mask

ISAS = ("base", "avx2", "avx512")
RUN_HERE = ISAS[: ISAS.index(_obs.best_isa()) + 1]


def problem(columns: int, rows: int = 3, near: float = 0.3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Rows over a Hessian whose inputs depend on each other: the smaller `near`, the nearer to singular."""
    draw = torch.Generator().manual_seed(1000 * columns + seed)
    shape = (2 * columns + 3, columns)
    x = torch.randn(shape[0], 1 + columns // 3, generator=draw, dtype=torch.float64)
    x = x @ torch.randn(1 + columns // 3, columns, generator=draw, dtype=torch.float64)
    x += near * torch.randn(shape, generator=draw, dtype=torch.float64)
    hessian = 2 * x.T @ x / len(x)
    weights = torch.randn(rows, columns, generator=draw, dtype=torch.float64)
    return weights, hessian


# Which rows lose how many


def cheapest(losses: Tensor) -> Tensor:
    """The least sum of losses for every number of removals, over all ways to divide it among rows: [total + 1]."""
    best = torch.zeros(1, dtype=torch.float64)
    for row in losses:
        sums = torch.cat([torch.zeros(1, dtype=torch.float64), row.cumsum(0)])
        table = torch.full((len(best) + len(row),), torch.inf, dtype=torch.float64)
        for taken, cost in enumerate(sums):
            table[taken : taken + len(best)] = torch.minimum(table[taken : taken + len(best)], best + cost)
        best = table
    return best


def chosen(trace: Trace) -> tuple[Tensor, Tensor]:
    """(the sum of losses, the key of the last step) for every number of removals, in the order of ranks."""
    rank = ranks({"": trace})[""].gather(1, trace.order.long()).flatten()
    order = rank.argsort()
    return trace.losses.flatten()[order].cumsum(0), trace.keys.flatten()[order]


def rows_compete_fairly(keyed: Callable[[Trace], Trace]) -> None:
    """Beginnings of rows, and no other division is cheaper, where steps that were averaged are not torn apart."""
    falls = ends = 0
    for seed in range(5):
        weights, hessian = problem(12, rows=6, near=0.1, seed=seed)
        trace = keyed(Rows(weights, hessian).trace())
        falls += int((trace.losses.diff(dim=1) < 0).sum())
        rank = ranks({"": trace})[""].gather(1, trace.order.long())
        assert bool((rank.diff(dim=1) > 0).all())
        sums, keys = chosen(trace)
        best = cheapest(trace.losses)[1:]
        assert bool((sums >= best - 1e-9).all())
        whole = torch.cat([keys.diff() > 0, torch.ones(1, dtype=torch.bool)])
        torch.testing.assert_close(sums[whole], best[whole])
        ends += int(whole.sum())
    assert falls > 10
    assert ends > 200


def test_rows_compete_fairly() -> None:
    rows_compete_fairly(lambda trace: trace)


@pytest.mark.parametrize(
    "keyed",
    [
        lambda trace: trace._replace(keys=trace.losses),  # a row's order is broken where its losses fall
        lambda trace: trace._replace(keys=trace.losses.cummax(1).values),
        lambda trace: trace._replace(keys=torch.arange(12).double().repeat(6, 1)),
    ],
    ids=["losses", "running maximum", "all alike"],
)
def test_other_keys_fail(keyed: Callable[[Trace], Trace]) -> None:
    with pytest.raises(AssertionError):
        rows_compete_fairly(keyed)


def test_keys_of_a_known_row() -> None:
    """Opposite weights of two inputs that are nearly the same: 0.19 for one of them, 0.01 for the other after it."""
    hessian = torch.tensor([[2, 1.8, 0], [1.8, 2, 0], [0, 0, 2]], dtype=torch.float64)
    trace = Rows(torch.tensor([[1.0, -1.0, 0.2]]), hessian).trace()
    assert int(trace.order[0, 0]) == 2
    torch.testing.assert_close(trace.losses, torch.tensor([[0.04, 0.19, 0.01]], dtype=torch.float64))
    torch.testing.assert_close(trace.keys, torch.tensor([[0.04, 0.1, 0.1]], dtype=torch.float64))


@pytest.mark.parametrize("columns", [1, 2, 5, 9])
def test_every_count_of_a_layer(columns: int) -> None:
    """All numbers of kept weights of a layer, with ties: a beginning of every row's order, exactly so many."""
    draw = torch.Generator().manual_seed(columns)
    rows = Rows(torch.randint(-1, 2, (4, columns), generator=draw).double(), 2 * torch.eye(columns).double())
    trace = rows.trace()
    scores = ranks({"": trace})[""]
    for keep in range(4 * columns + 1):
        mask = top_k_mask(scores, keep)
        assert int(mask.sum()) == keep
        for order, row in zip(trace.order.long(), mask, strict=True):
            assert torch.equal(row[order], row[order].sort().values)  # False, …, True


# What cannot be


def test_inputs_that_are_always_zero_cost_nothing() -> None:
    weights, hessian = problem(10)
    unseen = torch.zeros(10, dtype=torch.bool)
    unseen[[3, 7]] = True
    hessian[unseen], hessian[:, unseen] = 0, 0
    hessian.diagonal()[unseen] = 5
    weights[:, unseen] = 100
    rows = Rows(weights, hessian, unseen)
    trace = rows.trace()
    assert trace.order[:, :2].tolist() == [[3, 7]] * 3
    assert bool((trace.losses[:, :2] == 0).all())
    levels = rows.at(trace.order, torch.tensor([[0, 1, 2]] * 3))
    torch.testing.assert_close(levels[:, :, 3], torch.tensor([[100.0, 0, 0]] * 3, dtype=torch.float64))
    torch.testing.assert_close(levels[:, :, 7], torch.tensor([[100.0, 100, 0]] * 3, dtype=torch.float64))
    torch.testing.assert_close(levels[:, :, ~unseen], weights[:, None, ~unseen].expand(3, 3, 8))


@pytest.mark.parametrize("where", ["weights", "hessian"])
def test_numbers_that_are_none_are_refused(where: str) -> None:
    weights, hessian = problem(4)
    (weights if where == "weights" else hessian)[1, 1] = torch.nan
    with pytest.raises(UsageError, match="not finite"):
        Rows(weights, hessian)


def test_numbers_that_are_too_large_are_found() -> None:
    """Squares overflow: no order exists, and none is made up."""
    with pytest.raises(ArithmeticError, match="row 1 has no weight left to choose"):
        Rows(torch.tensor([[1.0, 2.0], [1e300, 1e300]], dtype=torch.float64), torch.eye(2).double()).trace()


def test_too_wide_for_the_memory() -> None:
    """Scratch is taken before any address is read: 8 TB of it are refused."""
    with pytest.raises(MemoryError, match="rows of 1048576"):
        _obs.trace(0, 0, 0, 0, 0, 0, 0, rows=1, columns=1 << 20, steps=1, group=0, groups=0, most=0,
                   isa="base", threads=1)  # fmt: skip


@pytest.mark.parametrize("isa", [*(isa for isa in ISAS if isa not in RUN_HERE), "mmx"])
def test_what_cannot_run_here_is_refused(isa: str) -> None:
    with pytest.raises(ValueError, match=f"this machine does not run {isa}"):
        Rows(*problem(4), isa=isa).trace()
