"""Uniform: one sparsity for all layers but the model's first and last."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sparsebench.builtin.allocators._uniform import Uniform
from sparsebench.errors import BudgetError
from sparsebench.pruning.host import Context
from sparsebench.pruning.masks import prunable


def allocate(model: nn.Module, target: float, exclude: tuple[str, ...] = ()) -> dict[str, float]:
    layers = prunable(model, exclude)
    ctx = Context(model=model, prunable=layers, masks={}, generator=torch.Generator())
    return Uniform().allocate(layers, target, ctx)


def test_the_ends_of_the_model_stay_dense_also_when_layers_are_excluded() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3), nn.Linear(4, 4), nn.Linear(4, 2))
    assert list(allocate(model, 0.9).values()) == [0, 0.9, 0.9, 0]
    assert allocate(model, 0.9, exclude=("3",)) == {"0.weight": 0, "1.weight": 0.9, "2.weight": 0.9}


def test_a_model_of_ends_alone_cannot_be_pruned_but_can_stay_dense() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    with pytest.raises(BudgetError, match="first and the last layer dense"):
        allocate(model, 0.5)
    assert list(allocate(model, 0.0).values()) == [0, 0]
