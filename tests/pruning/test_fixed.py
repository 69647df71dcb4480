"""Masks for cases that only time a pattern: exact, without changing the model; each breach is a small wrong plugin."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparsebench.errors import BudgetError, PluginError, UsageError
from sparsebench.pruning.context import Context
from sparsebench.pruning.contract import Event, Update
from sparsebench.pruning.fixed import fixed_masks
from sparsebench.pruning.masks import kept, top_k_mask


class Even:
    """The same sparsity everywhere."""

    def allocate(self, layers: Any, target: float, ctx: Context) -> Any:
        return dict.fromkeys(layers, target)


class Largest:
    """Magnitude, before training."""

    def setup(self, ctx: Context) -> Any:
        return Update(masks={name: self.mask(weight.abs(), ctx.budget(name)) for name, weight in ctx.prunable.items()})

    def mask(self, score: Tensor, keep: int) -> Tensor:
        return top_k_mask(score, keep)


class LargestAfter:
    """Magnitude, in one shot."""

    def compress(self, calibration: Any, ctx: Context) -> Update:
        return Update(masks=ctx.select({name: weight.abs() for name, weight in ctx.prunable.items()}))


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(10, 20), nn.BatchNorm1d(20), nn.Linear(20, 5))


@pytest.mark.parametrize("method", [Largest, LargestAfter])
def test_gives_exact_masks_and_leaves_the_model_alone(method: type) -> None:
    model = net()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    masks = fixed_masks(model, method(), Even(), 0.9, seed=0)
    assert {name: int(mask.sum()) for name, mask in masks.items()} == {"0.weight": kept(200, 0.9), "2.weight": 10}
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert list(fixed_masks(model, method(), Even(), 0.9, seed=0, exclude=["0"])) == ["2.weight"]


def test_what_no_allocator_can_meet() -> None:
    for sparsity in (1.0, -0.1, float("nan")):
        with pytest.raises(UsageError, match="sparsity"):
            fixed_masks(net(), Largest(), Even(), sparsity, seed=0)
    with pytest.raises(BudgetError, match=r"2.weight has 100 weights and keeps none"):
        fixed_masks(net(), Largest(), Even(), 0.996, seed=0)
    with pytest.raises(BudgetError, match="no Linear or Conv2d"):
        fixed_masks(nn.BatchNorm1d(3), Largest(), Even(), 0.5, seed=0)


class Forgets(Even):
    def allocate(self, layers: Any, target: float, ctx: Context) -> Any:
        return {name: target for name in layers if name != "2.weight"}


class Invents(Even):
    def allocate(self, layers: Any, target: float, ctx: Context) -> Any:
        return {**dict.fromkeys(layers, target), "9.weight": target}


class Exceeds(Even):
    def allocate(self, layers: Any, target: float, ctx: Context) -> Any:
        return dict.fromkeys(layers, target + 0.5)


class Nonsense(Even):
    def allocate(self, layers: Any, target: float, ctx: Context) -> Any:
        return list(layers)


@pytest.mark.parametrize("allocator", [Forgets, Invents, Exceeds, Nonsense])
def test_an_allocator_that_breaks_the_contract_is_named(allocator: type[Even]) -> None:
    with pytest.raises(PluginError, match=f"allocator {allocator.__name__}") as caught:
        fixed_masks(net(), Largest(), allocator(), 0.9, seed=0)
    assert "\n" not in str(caught.value)


class OneShort(Largest):
    def mask(self, score: Tensor, keep: int) -> Tensor:
        return top_k_mask(score, keep - 1)


class Transposed(Largest):
    def mask(self, score: Tensor, keep: int) -> Tensor:
        return top_k_mask(score, keep).t()


class Numbers(Largest):
    def mask(self, score: Tensor, keep: int) -> Tensor:
        return top_k_mask(score, keep).float()


class Stranger(Largest):
    def setup(self, ctx: Context) -> Any:
        return Update(masks={**super().setup(ctx).masks, "1.weight": torch.ones(20, dtype=torch.bool)})


class Misses(Largest):
    def setup(self, ctx: Context) -> Any:
        return Update(masks={"0.weight": super().setup(ctx).masks["0.weight"]})


class Bare(Largest):
    def setup(self, ctx: Context) -> Any:
        return super().setup(ctx).masks


class WritesWeights(Largest):
    def setup(self, ctx: Context) -> Any:
        ctx.prunable["0.weight"].zero_()
        return super().setup(ctx)


class WritesStatistics(Largest):
    def setup(self, ctx: Context) -> Any:
        ctx.model(torch.ones(4, 10))
        return super().setup(ctx)


class DrawsGlobally(Largest):
    def setup(self, ctx: Context) -> Any:
        torch.rand(1)
        return super().setup(ctx)


WRONG = [OneShort, Transposed, Numbers, Stranger, Misses, Bare, WritesWeights, WritesStatistics, DrawsGlobally]


@pytest.mark.parametrize("method", WRONG)
def test_a_method_that_breaks_the_contract_is_named(method: type[Largest]) -> None:
    with pytest.raises(PluginError, match=f"method {method.__name__}") as caught:
        fixed_masks(net(), method(), Even(), 0.9, seed=0)
    assert "\n" not in str(caught.value)


class Silent:
    """Never prunes."""


class Later:
    def on_event(self, event: Event, ctx: Context) -> Update:
        return Update(masks=ctx.select({name: weight.abs() for name, weight in ctx.prunable.items()}))


class Reweighs(Largest):
    def setup(self, ctx: Context) -> Any:
        return super().setup(ctx)._replace(weights={"0.weight": torch.zeros(20, 10)})


@pytest.mark.parametrize("method", [Silent, Later])
def test_a_method_that_decides_in_training_has_no_fixed_masks(method: type) -> None:
    with pytest.raises(UsageError, match=f"{method.__name__} decides in the course of a training"):
        fixed_masks(net(), method(), Even(), 0.9, seed=0)


def test_neither_has_one_that_changes_weights() -> None:
    with pytest.raises(UsageError, match=r"Reweighs changes the weights of 0\.weight"):
        fixed_masks(net(), Reweighs(), Even(), 0.9, seed=0)


def test_at_a_sparsity_of_zero_everything_is_kept() -> None:
    for method in (Silent(), Largest(), LargestAfter()):
        assert all(bool(mask.all()) for mask in fixed_masks(net(), method, Even(), 0.0, seed=0).values())


def test_the_records_of_the_context_cannot_be_written() -> None:
    class Grabs(Largest):
        def setup(self, ctx: Context) -> Any:
            ctx.masks["0.weight"] = None  # type: ignore[index]

    class Raises(Largest):
        def setup(self, ctx: Context) -> Any:
            ctx.budgets().layers["0.weight"] = 1  # type: ignore[index]

    for method in (Grabs(), Raises()):
        with pytest.raises(TypeError, match="mappingproxy"):
            fixed_masks(net(), method, Even(), 0.9, seed=0)


@pytest.mark.parametrize("need", ["calibration", "sample_grads"])
def test_a_method_that_needs_examples_is_refused_before_any_work(need: str) -> None:
    with pytest.raises(UsageError, match=f"needs '{need}', and there are no calibration examples.*accuracy case"):
        fixed_masks(net(), LargestAfter(), Even(), 0.9, seed=0, needs=[need])
