"""N:M: K of every G weights along the input channels, and no other target; what cannot be is named."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from sparsebench.builtin.allocators._nm import FineGrained
from sparsebench.errors import BudgetError, UsageError
from sparsebench.pruning.host import Host
from sparsebench.registry import load_registry


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(8, 6, 3), nn.Flatten(), nn.Linear(16, 5))


@pytest.mark.parametrize(("argument", "keep", "group"), [("2:4", 2, 4), ("1:4", 1, 4), ("4:8", 4, 8), ("3:4", 3, 4)])
def test_every_group_keeps_its_number(argument: str, keep: int, group: int) -> None:
    ctx = Host(model(), object(), FineGrained(argument), sparsity=1 - keep / group).ctx
    masks = ctx.select({name: weight.abs() for name, weight in ctx.prunable.items()})
    assert ctx.budgets().broken(masks) is None
    for name, mask in masks.items():
        groups = mask.movedim(1, -1).reshape(-1, group)
        assert bool((groups.sum(1) == keep).all())
        scores = ctx.prunable[name].abs().movedim(1, -1).reshape(-1, group)
        assert bool((scores.where(groups, scores + 9).amin(1) >= scores.where(~groups, scores - 9).amax(1)).all())


def test_the_direction_counts() -> None:
    """Masks that keep 2 of 4 along the outputs are another pattern."""
    ctx = Host(nn.Linear(8, 8), object(), FineGrained("2:4"), sparsity=0.5).ctx
    masks = ctx.select({name: weight.abs() for name, weight in ctx.prunable.items()})
    assert ctx.budgets().broken(masks) is None
    assert "2 of every 4" in str(ctx.budgets().broken({"weight": masks["weight"].t().contiguous()}))


def test_another_target_is_not_to_be_had(allocate: Callable[..., dict[str, float]]) -> None:
    for target in (0.25, 0.51, 0.9):
        with pytest.raises(BudgetError, match=f"nm:2:4 has the sparsity 0.5 and no other; {target:g}"):
            allocate(FineGrained("2:4"), model(), target)
    assert allocate(FineGrained("1:4"), model(), 0.75) == {"0.weight": 0.75, "2.weight": 0.75}


def test_a_layer_without_whole_groups_is_named_with_what_to_do(allocate: Callable[..., dict[str, float]]) -> None:
    odd = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3))
    with pytest.raises(BudgetError, match=r'0\.weight has 3 input channels.*exclude = \["0"\]'):
        allocate(FineGrained("2:4"), odd, 0.5)
    assert allocate(FineGrained("2:4"), odd, 0.5, ("0",)) == {"1.weight": 0.5}


@pytest.mark.parametrize("name", ["nm:4:2", "nm:2:2", "nm:0:4", "nm:2", "nm:two:four", "nm:2:4:8", "nm:-2:4", "nm:²:4"])
def test_an_argument_that_is_no_pattern(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name}: write the kept weights and the group, as in nm:2:4"):
        load_registry().create("allocators", name)


def test_the_argument_is_wanted() -> None:
    with pytest.raises(UsageError, match="'nm' wants K:G"):
        load_registry().create("allocators", "nm")
    assert str(load_registry().create("allocators", "nm:2:4").scope) == "2:4"
