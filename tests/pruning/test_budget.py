"""Budgets are met exactly over layers, the model or groups; what misses one is named, and so is a layer left empty."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from sparsebench.errors import BudgetError, PluginError, UsageError
from sparsebench.pruning.budget import Budget, dense_budget, resolve
from sparsebench.pruning.contract import NM
from sparsebench.pruning.masks import kept

SHAPES = {"c": (1, 4), "a": (6, 8), "b": (5, 4, 3, 3)}


def scores(kind: str = "random") -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(1)
    make: dict[str, Callable[[tuple[int, ...]], Tensor]] = {
        "random": lambda shape: torch.rand(shape, generator=draw),
        "tied": lambda shape: torch.randint(0, 3, shape, generator=draw).float(),
        "constant": torch.ones,
    }
    return {name: make[kind](shape) for name, shape in SHAPES.items()}


def budget(sparsity: float, scope: Any = "layer") -> Budget:
    """That of an allocator which gives every layer the same share."""

    class Allocator:
        def allocate(self, layers: Mapping[str, Tensor], target: float, ctx: Any) -> dict[str, float]:
            return dict.fromkeys(layers, target)

    Allocator.scope = scope  # type: ignore[attr-defined]
    return resolve(Allocator(), scores(), sparsity, None)  # type: ignore[arg-type]


def check_selection(select: Callable[[Budget, Mapping[str, Tensor]], dict[str, Tensor]]) -> None:
    """Counts are exact over layers and over the model, also where scores tie."""
    for kind in ("random", "tied", "constant"):
        for sparsity in (0.1, 0.25, 0.5):
            for scope in ("layer", "model"):
                rule, given = budget(sparsity, scope), scores(kind)
                masks = select(rule, given)
                assert rule.broken(masks) is None
                counts = {name: int(mask.sum()) for name, mask in masks.items()}
                if scope == "layer":
                    assert counts == {name: kept(score.numel(), sparsity) for name, score in given.items()}
                assert rule.total == kept(48 + 180 + 4, sparsity) if scope == "model" else True
                assert sum(counts.values()) == rule.total


def by_threshold(rule: Budget, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What most published code does."""
    flat = torch.cat([score.reshape(-1) for score in given.values()])
    cut = flat.sort(descending=True).values[rule.total - 1]
    return {name: score > cut for name, score in given.items()}


def test_selection_is_exact() -> None:
    check_selection(lambda rule, given: rule.select(given))
    with pytest.raises(AssertionError):
        check_selection(by_threshold)


def test_over_the_model_the_highest_scores_win_wherever_they_are() -> None:
    given = scores()
    given["a"] += 10
    masks = budget(0.5, "model").select({name: score + (name == "c") * 20 for name, score in given.items()})
    assert bool(masks["a"].all())
    assert bool(masks["c"].all())
    assert int(masks["b"].sum()) == kept(232, 0.5) - 48 - 4


def test_groups() -> None:
    rule = budget(0.5, NM(2, 4))
    masks = rule.select(scores("tied"))
    assert rule.broken(masks) is None
    for mask in masks.values():
        assert bool((mask.movedim(1, -1).reshape(-1, 4).sum(1) == 2).all())
    groups = masks["b"].movedim(1, -1).reshape(-1, 4).clone()
    groups[0], groups[1] = torch.tensor([True, False, False, False]), torch.tensor([True, True, True, False])
    moved = {**masks, "b": groups.reshape(5, 3, 3, 4).movedim(-1, 1)}
    assert rule.broken(moved) == "b does not keep 2 of every 4 along its input channels"


@pytest.mark.parametrize("scope", ["layer", NM(2, 4)])
def test_a_layer_that_misses_is_named(scope: Any) -> None:
    rule = budget(0.5, scope)
    masks = rule.select(scores())
    masks["b"] = masks["b"].clone()
    masks["b"][masks["b"].nonzero()[0].tolist()[0]] = False
    assert str(rule.broken(masks)).startswith("b keeps ")
    assert "its budget is 90" in str(rule.broken(masks))
    assert rule.broken({name: masks[name] for name in ("a", "c")}) is None  # b is not looked at


def test_a_total_that_misses_says_both_numbers() -> None:
    rule = budget(0.5, "model")
    masks = rule.select(scores())
    masks["a"] = torch.zeros_like(masks["a"])
    assert rule.broken(masks) == "a keeps no weight"
    masks["a"][0, 0] = True
    total = sum(int(mask.sum()) for mask in masks.values())
    assert rule.broken(masks) == f"the model keeps {total} weights; its budget is {rule.total}"


def test_a_layer_left_empty_is_named() -> None:
    with pytest.raises(BudgetError, match=r"c has 4 weights and keeps none at a sparsity of 0.9"):
        budget(0.9)
    low = {name: score - (name == "c") * 10 for name, score in scores().items()}
    with pytest.raises(BudgetError, match=r"c keeps none of its 4 weights at a sparsity of 0.9"):
        budget(0.9, "model").select(low)
    high = {name: score + (name == "c") * 10 for name, score in scores().items()}
    assert bool(budget(0.9, "model").select(high)["c"].all())  # it competes, and wins


def test_scores_for_other_layers_are_no_scores() -> None:
    given = scores()
    for wrong in ({**given, "d": torch.ones(3)}, {"a": given["a"]}):
        with pytest.raises(PluginError, match="scores are needed for every prunable layer"):
            budget(0.5).select(wrong)
    with pytest.raises(UsageError, match="NaN"):
        budget(0.5).select({**given, "a": given["a"] * float("nan")})


def test_a_dense_budget_keeps_everything() -> None:
    rule = dense_budget(scores())
    assert rule.total == 232
    assert all(bool(mask.all()) for mask in rule.select(scores("constant")).values())


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan"), None, "0.5"])
def test_an_allocator_that_gives_no_share_is_named(share: Any) -> None:
    class Odd:
        def allocate(self, layers: Any, target: float, ctx: Any) -> Any:
            return {name: share if name == "b" else target for name in layers}

    with pytest.raises(PluginError, match=r"allocator Odd: b gets a sparsity of"):
        resolve(Odd(), scores(), 0.5, None)  # type: ignore[arg-type]


def test_layers_of_an_nm_budget_that_stay_dense_have_no_groups() -> None:
    class Ends:
        scope = NM(2, 4)

        def allocate(self, layers: Any, target: float, ctx: Any) -> dict[str, float]:
            return {name: 0.0 if name == "a" else target for name in layers}

    rule = resolve(Ends(), scores(), 0.5, None)  # type: ignore[arg-type]
    assert rule.groups == {"b", "c"}
    masks = rule.select(scores())
    assert bool(masks["a"].all())
    assert rule.broken(masks) is None
