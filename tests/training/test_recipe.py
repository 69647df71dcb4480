"""A recipe makes the optimizer it names, and its learning rate rises, then falls to nearly zero."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from sparsebench.errors import UsageError
from sparsebench.training.recipe import Recipe, learning_rate


def test_learning_rate_rises_then_falls_to_nearly_zero() -> None:
    rates = [learning_rate(step, 100, 0.5) for step in range(100)]
    assert rates[0] == pytest.approx(0.05)
    assert max(rates) == rates[9] == 0.5
    assert rates[:10] == sorted(rates[:10])
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert 0 < rates[-1] < 0.001
    assert [learning_rate(0, 1, 0.5), *(learning_rate(s, 2, 0.5) for s in range(2))] == [0.5, 0.5, pytest.approx(0.25)]


@pytest.mark.parametrize(
    ("options", "kind", "expected"),
    [
        ({}, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4, "nesterov": False}),
        ({"nesterov": True, "momentum": 0.5}, torch.optim.SGD, {"momentum": 0.5, "nesterov": True}),
        ({"optimizer": "adam", "lr": 0.01}, torch.optim.Adam, {"lr": 0.01, "weight_decay": 1e-4}),
        ({"optimizer": "adamw", "weight_decay": 0.5}, torch.optim.AdamW, {"weight_decay": 0.5}),
    ],
)
def test_the_optimizer_is_what_the_recipe_says(options: dict[str, Any], kind: type, expected: dict[str, Any]) -> None:
    model = nn.Linear(2, 2)
    optimizer = Recipe(**options).make_optimizer(model.parameters())
    assert type(optimizer) is kind
    (group,) = optimizer.param_groups
    assert group["params"] == [model.weight, model.bias]
    assert {name: group[name] for name in expected} == expected


def test_a_recipe_that_cannot_be_is_a_usage_error() -> None:
    for wrong in ({"epochs": -1}, {"batch": 0}):
        with pytest.raises(UsageError, match=r"must not be negative, and batch = .* at least 1"):
            Recipe(**wrong)
    for name in ("lr", "momentum", "weight_decay"):
        for value in (-0.1, float("nan"), float("inf")):
            with pytest.raises(UsageError, match=rf"{name} = .*; use a number that is not negative"):
                Recipe(**{name: value})
    with pytest.raises(UsageError, match="nesterov = true needs a momentum"):
        Recipe(nesterov=True, momentum=0.0)
    with pytest.raises(UsageError, match="optimizer = 'lamb'; use sgd, adam, adamw"):
        Recipe(optimizer="lamb")
