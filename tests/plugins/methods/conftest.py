"""A small model with ties in its weights, and the context a host would show of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from sparsebench.pruning.host import Context
from sparsebench.pruning.masks import kept, prunable


@pytest.fixture
def context() -> Callable[..., Context]:
    """`context(seed, sparsity, exclude)` for three linear layers."""

    def make(seed: int = 0, sparsity: float = 0.8, exclude: tuple[str, ...] = ()) -> Context:
        model = nn.Sequential(nn.Linear(6, 20), nn.Linear(20, 20), nn.Linear(20, 4))
        generator = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randint(-3, 4, parameter.shape, generator=generator))
        layers = prunable(model, exclude)
        budgets = {name: kept(p.numel(), sparsity) for name, p in layers.items()}
        masks = {name: torch.ones_like(p, dtype=torch.bool) for name, p in layers.items()}
        return Context(
            model=model, prunable=layers, masks=masks, budgets=budgets, generator=torch.Generator().manual_seed(seed)
        )

    return make
