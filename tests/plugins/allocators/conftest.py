"""What an allocator gives for a model, as the host asks it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from sparsebench.pruning.host import Host


@pytest.fixture
def allocate() -> Callable[..., dict[str, float]]:
    """`allocate(allocator, model, target, exclude)`: the sparsity of every layer."""

    def ask(allocator: Any, model: nn.Module, target: float, exclude: tuple[str, ...] = ()) -> dict[str, float]:
        ctx = Host(model, object(), allocator, sparsity=target, exclude=exclude).ctx
        shares: dict[str, float] = allocator.allocate(ctx.prunable, target, ctx)
        return shares

    return ask
