"""Uniform: one sparsity for all layers but the model's first and last."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import nn

from sparsebench.builtin.allocators._uniform import Uniform
from sparsebench.errors import BudgetError
from sparsebench.pruning.host import Host

Allocate = Callable[..., dict[str, float]]


def test_the_ends_of_the_model_stay_dense_also_when_layers_are_excluded(allocate: Allocate) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3), nn.Linear(4, 4), nn.Linear(4, 2))
    assert list(allocate(Uniform(), model, 0.9).values()) == [0, 0.9, 0.9, 0]
    assert allocate(Uniform(), model, 0.9, ("3",)) == {"0.weight": 0, "1.weight": 0.9, "2.weight": 0.9}
    assert allocate(Uniform(), model, 0.9, ("1",)) == {"0.weight": 0, "2.weight": 0.9, "3.weight": 0}


def test_a_model_of_ends_alone_cannot_be_pruned_but_can_stay_dense(allocate: Allocate) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    with pytest.raises(BudgetError, match="first and the last layer dense"):
        allocate(Uniform(), model, 0.5)
    assert list(allocate(Uniform(), model, 0.0).values()) == [0, 0]


def test_its_budget_is_exact_in_every_layer() -> None:
    model = nn.Sequential(nn.Linear(4, 9), nn.Linear(9, 9), nn.Linear(9, 7), nn.Linear(7, 2))
    budget = Host(model, object(), Uniform(), sparsity=0.9).ctx.budgets()
    assert dict(budget.layers) == {"0.weight": 36, "1.weight": 8, "2.weight": 6, "3.weight": 14}
    assert budget.total == 64
