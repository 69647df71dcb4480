"""ER and ERK: densities in proportion to the rule, no layer above 1, and the target is met, not missed by a clamp."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sparsebench.builtin.allocators._erdos_renyi import ER, ERK
from sparsebench.pruning.host import Host

Shapes = list[tuple[int, ...]]
RESNET20: Shapes = [
    (16, 3, 3, 3), *[(16, 16, 3, 3)] * 6, (32, 16, 3, 3), *[(32, 32, 3, 3)] * 5, (64, 32, 3, 3),
    *[(64, 64, 3, 3)] * 5, (10, 64),
]  # fmt: skip


def layers(shapes: Shapes) -> dict[str, Tensor]:
    return {f"{index}.weight": torch.empty(shape) for index, shape in enumerate(shapes)}


def rule(allocator: type, shape: tuple[int, ...]) -> float:
    """The sum over the product of the sizes that count."""
    counts = shape[:2] if allocator is ER else shape
    return sum(counts) / math.prod(counts)


def check_allocation(allocate: Callable[..., dict[str, float]], allocator: type, shapes: Shapes, target: float) -> None:
    shares = allocate(layers(shapes), target, None)
    assert all(0 <= share <= 1 for share in shares.values())
    sizes = [math.prod(shape) for shape in shapes]
    total = sum(share * size for share, size in zip(shares.values(), sizes, strict=True))
    assert total == pytest.approx(target * sum(sizes), rel=1e-9)
    scales = [(1 - share) / rule(allocator, shape) for share, shape in zip(shares.values(), shapes, strict=True)]
    free = [scale for scale, share in zip(scales, shares.values(), strict=True) if share > 0]
    assert max(free) == pytest.approx(min(free), rel=1e-6)
    for shape, share in zip(shapes, shares.values(), strict=True):
        assert share > 0 or free[0] * rule(allocator, shape) >= 1 - 1e-9  # dense only because the rule asks for more


class Clamps(ERK):
    """The fault of published code: what exceeds 1 is cut off, and nobody else gets it."""

    def allocate(self, layers: Any, target: float, ctx: Any) -> dict[str, float]:
        raw = {name: sum(weight.shape) / math.prod(weight.shape) for name, weight in layers.items()}
        sizes = {name: weight.numel() for name, weight in layers.items()}
        scale = (1 - target) * sum(sizes.values()) / sum(raw[name] * sizes[name] for name in raw)
        return {name: 1 - min(1.0, scale * raw[name]) for name in raw}


@pytest.mark.parametrize("allocator", [ER, ERK])
@pytest.mark.parametrize("target", [0.1, 0.5, 0.8, 0.9, 0.95, 0.99])
def test_the_target_is_met_on_a_residual_network(allocator: type, target: float) -> None:
    check_allocation(allocator().allocate, allocator, RESNET20, target)


def test_the_check_catches_a_clamp() -> None:
    check_allocation(Clamps().allocate, ERK, [(8, 8), (8, 8)], 0.5)  # nothing to clamp
    with pytest.raises(AssertionError):
        check_allocation(Clamps().allocate, ERK, RESNET20, 0.8)


@pytest.mark.parametrize(("target", "dense"), [(0.5, 9), (0.8, 2), (0.9, 2), (0.95, 1)])
def test_how_many_layers_stay_dense(target: float, dense: int) -> None:
    shares = ERK().allocate(layers(RESNET20), target, None)  # type: ignore[arg-type]
    assert sum(share == 0 for share in shares.values()) == dense


@settings(max_examples=60, deadline=None)
@given(
    shapes=st.lists(
        st.one_of(
            st.tuples(st.integers(1, 64), st.integers(1, 64)),
            st.tuples(st.integers(1, 32), st.integers(1, 32), st.integers(1, 5), st.integers(1, 5)),
        ),
        min_size=1,
        max_size=8,
    ),
    target=st.floats(0.01, 0.99),
    allocator=st.sampled_from([ER, ERK]),
)
def test_the_target_is_met_whatever_the_shapes(shapes: Shapes, target: float, allocator: type) -> None:
    check_allocation(allocator().allocate, allocator, shapes, target)


@pytest.mark.parametrize("allocator", [ER, ERK])
def test_layers_of_one_shape_all_get_the_target(allocator: type) -> None:
    for shape in [(16, 16), (8, 8, 3, 3)]:
        shares = allocator().allocate(layers([shape] * 5), 0.7, None)
        assert list(shares.values()) == pytest.approx([0.7] * 5)


def test_windows_count_in_one_of_them_alone() -> None:
    plain, window = [(16, 32), (64, 64)], [(16, 32, 3, 3), (64, 64, 3, 3)]
    er, erk = ({name: allocator().allocate(layers(s), 0.8, None) for name, s in (("plain", plain), ("window", window))}  # type: ignore[arg-type]
               for allocator in (ER, ERK))  # fmt: skip
    assert er["plain"] == pytest.approx(er["window"])
    assert erk["plain"] == pytest.approx(er["plain"])
    assert erk["window"] != pytest.approx(er["window"])


@pytest.mark.parametrize("sparsity", [0.5, 0.9, 0.95])
def test_counts_are_within_a_weight_of_each_layer(sparsity: float) -> None:
    model = nn.Sequential(*(nn.Conv2d(s[1], s[0], 3) if len(s) == 4 else nn.Linear(s[1], s[0]) for s in RESNET20))
    budget = Host(model, object(), ERK(), sparsity=sparsity).ctx.budgets()
    sizes = sum(math.prod(shape) for shape in RESNET20)
    assert abs(budget.total - (1 - sparsity) * sizes) <= len(RESNET20)
    assert budget.total == sum(budget.layers.values())
