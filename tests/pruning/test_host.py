"""The host holds methods and allocators to the budget; each breach is a small wrong plugin that is caught."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparsebench.errors import BudgetError, PluginError, UsageError
from sparsebench.pruning.host import Context, Update, fixed_masks
from sparsebench.pruning.masks import kept, top_k_mask


class Flat:
    """The same sparsity everywhere."""

    def allocate(self, layers: Any, target: float, ctx: Context) -> dict[str, float]:
        return dict.fromkeys(layers, target)


class Largest:
    """Magnitude."""

    def setup(self, ctx: Context) -> Update:
        return Update(masks={name: self.mask(p.detach().abs(), ctx.budget(name)) for name, p in ctx.prunable.items()})

    def mask(self, score: Tensor, keep: int) -> Tensor:
        return top_k_mask(score, keep)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(10, 20), nn.BatchNorm1d(20), nn.Linear(20, 5))


def test_gives_exact_masks_and_leaves_the_model_alone() -> None:
    model = net()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    masks = fixed_masks(model, Largest(), Flat(), 0.9, seed=0)
    assert {name: int(mask.sum()) for name, mask in masks.items()} == {"0.weight": kept(200, 0.9), "2.weight": 10}
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert list(fixed_masks(model, Largest(), Flat(), 0.9, seed=0, exclude=["0"])) == ["2.weight"]


def test_what_no_allocator_can_meet() -> None:
    for sparsity in (1.0, -0.1, float("nan")):
        with pytest.raises(UsageError, match="sparsity"):
            fixed_masks(net(), Largest(), Flat(), sparsity, seed=0)
    with pytest.raises(BudgetError, match=r"2.weight has 100 weights and keeps none"):
        fixed_masks(net(), Largest(), Flat(), 0.996, seed=0)
    with pytest.raises(BudgetError, match="no Linear or Conv2d"):
        fixed_masks(nn.BatchNorm1d(3), Largest(), Flat(), 0.5, seed=0)


class Forgets(Flat):
    def allocate(self, layers: Any, target: float, ctx: Context) -> dict[str, float]:
        return {name: target for name in layers if name != "2.weight"}


class Invents(Flat):
    def allocate(self, layers: Any, target: float, ctx: Context) -> dict[str, float]:
        return {**dict.fromkeys(layers, target), "9.weight": target}


class Exceeds(Flat):
    def allocate(self, layers: Any, target: float, ctx: Context) -> dict[str, float]:
        return dict.fromkeys(layers, target + 0.5)


class Nonsense(Flat):
    def allocate(self, layers: Any, target: float, ctx: Context) -> Any:
        return list(layers)


@pytest.mark.parametrize("allocator", [Forgets, Invents, Exceeds, Nonsense])
def test_an_allocator_that_breaks_the_contract_is_named(allocator: type[Flat]) -> None:
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
    def setup(self, ctx: Context) -> Update:
        return Update(masks={**(super().setup(ctx).masks or {}), "1.weight": torch.ones(20, dtype=torch.bool)})


class Misses(Largest):
    def setup(self, ctx: Context) -> Update:
        masks = super().setup(ctx).masks or {}
        return Update(masks={"0.weight": masks["0.weight"]})


class Silent(Largest):
    def setup(self, ctx: Context) -> Any:
        return None


class Reweighs(Largest):
    def setup(self, ctx: Context) -> Update:
        return super().setup(ctx)._replace(weights={"0.weight": torch.zeros(20, 10)})


class WritesWeights(Largest):
    def setup(self, ctx: Context) -> Update:
        ctx.prunable["0.weight"].data.zero_()
        return super().setup(ctx)


class WritesStatistics(Largest):
    def setup(self, ctx: Context) -> Update:
        ctx.model(torch.ones(4, 10))
        return super().setup(ctx)


class DrawsGlobally(Largest):
    def setup(self, ctx: Context) -> Update:
        torch.rand(1)
        return super().setup(ctx)


@pytest.mark.parametrize(
    "method",
    [OneShort, Transposed, Numbers, Stranger, Misses, Silent, Reweighs, WritesWeights, WritesStatistics, DrawsGlobally],
)
def test_a_method_that_breaks_the_contract_is_named(method: type[Largest]) -> None:
    with pytest.raises(PluginError, match=method.__name__) as caught:
        fixed_masks(net(), method(), Flat(), 0.9, seed=0)
    assert "\n" not in str(caught.value)


def test_the_parts_of_the_context_that_are_records_cannot_be_written() -> None:
    class Grabs(Largest):
        def setup(self, ctx: Context) -> Update:
            ctx.budgets["0.weight"] = 1  # type: ignore[index]
            return super().setup(ctx)

    with pytest.raises(TypeError):
        fixed_masks(net(), Grabs(), Flat(), 0.9, seed=0)
