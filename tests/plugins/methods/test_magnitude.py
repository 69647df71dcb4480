"""Magnitude: nothing dropped is larger than anything kept, by exact counts; masks nest and follow permutations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from sparsebench.pruning.host import Host

Masks = Mapping[str, Tensor]


@pytest.fixture
def masks_of(host_of: Callable[..., Host], net: Callable[..., nn.Sequential]) -> Callable[..., Masks]:
    """The masks of one shot."""

    def make(sparsity: float, allocator: str = "global", model: nn.Module | None = None, **options: object) -> Masks:
        host = host_of("magnitude", sparsity, allocator, model=net(tied=True) if model is None else model, **options)
        host.begin()
        host.finish()
        return host.masks

    return make


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.8, 0.95])
@pytest.mark.parametrize("allocator", ["global", "uniform", "er", "erk"])
def test_keeps_the_largest(
    sparsity: float, allocator: str, host_of: Callable[..., Host], net: Callable[..., nn.Sequential]
) -> None:
    model = net(tied=True)
    before = {name: weight.detach().abs().clone() for name, weight in model.named_parameters()}
    host = host_of("magnitude", sparsity, allocator, model=model)
    host.begin()
    host.finish()
    masks, budget = host.masks, host.ctx.budgets()
    assert sum(int(mask.sum()) for mask in masks.values()) == budget.total
    if budget.scope == "layer":
        assert {name: int(mask.sum()) for name, mask in masks.items()} == dict(budget.layers)
        groups = [[name] for name in masks]
    else:
        groups = [list(masks)]
    for names in groups:
        kept = torch.cat([before[name][masks[name]] for name in names])
        dropped = torch.cat([before[name][~masks[name]] for name in names])
        assert dropped.numel() == 0 or float(kept.min()) >= float(dropped.max())


@pytest.mark.parametrize("allocator", ["global", "uniform", "erk"])
def test_masks_nest(allocator: str, masks_of: Callable[..., Masks]) -> None:
    found = [masks_of(sparsity, allocator) for sparsity in (0.2, 0.5, 0.8, 0.9)]
    for loose, tight in pairwise(found):
        assert all(bool((loose[name] | ~tight[name]).all()) for name in loose)
        assert any(bool((loose[name] & ~tight[name]).any()) for name in loose)


def test_the_order_of_neurons_does_not_matter(
    masks_of: Callable[..., Masks], net: Callable[..., nn.Sequential]
) -> None:
    rows, columns = torch.randperm(20), torch.randperm(20)
    for allocator in ("global", "uniform"):
        model, shuffled = net(), net()
        with torch.no_grad():
            shuffled[3].weight.copy_(model[3].weight[rows][:, columns])
        plain, other = (masks_of(0.7, allocator, each) for each in (model, shuffled))
        assert torch.equal(other["3.weight"], plain["3.weight"][rows][:, columns])
        assert not torch.equal(other["3.weight"], plain["3.weight"])


def test_with_one_layer_global_is_uniform(masks_of: Callable[..., Masks]) -> None:
    alone = {"exclude": ["0", "6", "9"]}
    first, second, third = (masks_of(0.7, allocator, **alone) for allocator in ("global", "uniform", "erk"))
    assert list(first) == ["3.weight"]
    assert torch.equal(first["3.weight"], second["3.weight"])
    assert torch.equal(first["3.weight"], third["3.weight"])


def test_n_of_m_keeps_the_largest_of_every_group(
    host_of: Callable[..., Host], net: Callable[..., nn.Sequential]
) -> None:
    model = net()
    before = {name: weight.detach().abs().clone() for name, weight in model.named_parameters()}
    host = host_of("magnitude", 0.5, "nm:2:4", model=model, exclude=["0"])
    host.begin()
    host.finish()
    for name, mask in host.masks.items():
        groups, weights = mask.reshape(-1, 4), before[name].reshape(-1, 4)
        assert bool((groups.sum(1) == 2).all())
        assert bool((weights.where(groups, weights + 9).amin(1) > weights.where(~groups, weights - 9).amax(1)).all())
