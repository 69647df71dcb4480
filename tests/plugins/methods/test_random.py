"""Random and static: the same random masks, after or before training; exact, repeatable, independent by layer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sparsebench.pruning.host import Host


@pytest.fixture
def masks_of(host_of: Callable[..., Host]) -> Callable[..., dict[str, Tensor]]:
    def make(name: str = "random", seed: int = 0, **options: object) -> dict[str, Tensor]:
        host = host_of(name, 0.8, seed=seed, **{"allocator": "uniform", **options})
        host.begin()
        host.finish()
        return host.masks

    return make


@pytest.mark.parametrize("name", ["random", "static"])
@pytest.mark.parametrize("allocator", ["uniform", "erk", "global"])
def test_counts_are_exact_and_the_seed_decides(name: str, allocator: str, host_of: Callable[..., Host]) -> None:
    found = []
    for seed in (3, 3, 4):
        host = host_of(name, 0.8, allocator, seed=seed)
        host.begin()
        host.finish()
        assert host.ctx.budgets().broken(host.masks) is None
        found.append(host.masks)
    first, again, other = found
    assert all(torch.equal(first[each], again[each]) for each in first)
    assert not torch.equal(first["3.weight"], other["3.weight"])


def test_static_is_random_before_training_and_never_changes(
    masks_of: Callable[..., dict[str, Tensor]], host_of: Callable[..., Host], drive: Callable[..., Host]
) -> None:
    host, seen = host_of("static", 0.8, "uniform"), []
    drive(host, 6, look=lambda: seen.append(dict(host.masks)))
    expected = masks_of("random")
    assert all(torch.equal(masks[name], expected[name]) for masks in seen for name in expected)
    assert host.updates == 1


def test_random_is_dense_until_the_end(host_of: Callable[..., Host], drive: Callable[..., Host]) -> None:
    host, seen = host_of("random"), []
    drive(host, 6, look=lambda: seen.append(host.sparsity_now))
    assert seen == [0] * 6
    assert host.sparsity_now == pytest.approx(0.8, abs=1e-3)


def test_excluding_a_layer_changes_no_other(masks_of: Callable[..., dict[str, Tensor]]) -> None:
    full, part = masks_of(), masks_of(exclude=("6",))
    assert part.keys() == full.keys() - {"6.weight"}
    assert all(torch.equal(full[name], part[name]) for name in part)


def test_layers_of_one_shape_get_different_masks(masks_of: Callable[..., dict[str, Tensor]]) -> None:
    masks = masks_of()
    assert masks["3.weight"].shape == masks["6.weight"].shape
    assert not torch.equal(masks["3.weight"], masks["6.weight"])


def test_every_weight_is_kept_equally_often(masks_of: Callable[..., dict[str, Tensor]]) -> None:
    seeds = 200
    share = sum(masks_of(seed=seed)["3.weight"].double() for seed in range(seeds)) / seeds
    assert abs(float(share.mean()) - 0.2) < 1e-9
    # binomial with a standard deviation of 0.028: over 400 weights none strays past 5 of them
    assert float((share - 0.2).abs().max()) < 0.142
