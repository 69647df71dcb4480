"""Global: one budget for the model, the ends included, whatever comes out for a layer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from sparsebench.builtin.allocators._global import Global
from sparsebench.pruning.host import Host
from sparsebench.pruning.masks import kept


def test_every_layer_competes(allocate: Callable[..., dict[str, float]]) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3), nn.Linear(4, 2))
    assert set(allocate(Global(), model, 0.75).values()) == {0.75}


def test_the_total_is_exact_and_large_weights_win_wherever_they_are() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(7, 11), nn.Linear(11, 5), nn.Linear(5, 3))
    with torch.no_grad():
        model[1].weight.add_(100)
    ctx = Host(model, object(), Global(), sparsity=0.5).ctx
    for sparsity in (0.1, 0.37, 0.5):
        masks = ctx.select({name: weight.abs() for name, weight in ctx.prunable.items()}, sparsity)
        assert sum(int(mask.sum()) for mask in masks.values()) == kept(77 + 55 + 15, sparsity)
        assert bool(masks["1.weight"].all())


def test_a_small_layer_may_win_more_than_its_share() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 50))
    with torch.no_grad():
        model[0].weight.fill_(9)
    ctx = Host(model, object(), Global(), sparsity=0.95).ctx  # of 4 weights none would be left
    masks = ctx.select({name: weight.abs() for name, weight in ctx.prunable.items()})
    assert [int(mask.sum()) for mask in masks.values()] == [4, 1]
