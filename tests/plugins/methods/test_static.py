"""Static: random, exact, repeatable, and independent from layer to layer."""

from __future__ import annotations

from collections.abc import Callable

import torch

from sparsebench.builtin.methods._static import Static


def test_counts_are_exact_and_the_seed_decides(context: Callable) -> None:
    ctx = context(seed=3)
    masks = Static().setup(ctx).masks
    assert {name: int(mask.sum()) for name, mask in masks.items()} == ctx.budgets
    again, other = Static().setup(context(seed=3)).masks, Static().setup(context(seed=4)).masks
    assert all(torch.equal(masks[name], again[name]) for name in masks)
    assert not any(torch.equal(masks[name], other[name]) for name in masks)


def test_excluding_a_layer_changes_no_other(context: Callable) -> None:
    full, part = Static().setup(context()).masks, Static().setup(context(exclude=("0",))).masks
    assert part.keys() == full.keys() - {"0.weight"}
    assert all(torch.equal(full[name], part[name]) for name in part)


def test_every_weight_is_kept_equally_often(context: Callable) -> None:
    seeds = 400
    counts = sum(Static().setup(context(seed=seed)).masks["1.weight"].double() for seed in range(seeds))
    share = counts / seeds
    assert abs(float(share.mean()) - 0.2) < 1e-9
    # binomial with a standard deviation of 0.02: over 400 weights none strays past 5 of them
    assert float((share - 0.2).abs().max()) < 0.1
