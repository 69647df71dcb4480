"""Magnitude: nothing dropped is larger than anything kept, by exact counts, and masks nest."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sparsebench.builtin.methods._magnitude import Magnitude


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.8, 0.95])
def test_keeps_the_largest(context: Callable, sparsity: float) -> None:
    ctx = context(sparsity=sparsity)
    for name, mask in Magnitude().setup(ctx).masks.items():
        size = ctx.prunable[name].detach().abs()
        assert int(mask.sum()) == ctx.budget(name)
        assert mask.all() or float(size[mask].min()) >= float(size[~mask].max())


def test_masks_nest(context: Callable) -> None:
    loose, tight = (Magnitude().setup(context(sparsity=s)).masks for s in (0.5, 0.9))
    assert all(bool((loose[name] | ~tight[name]).all()) for name in loose)
