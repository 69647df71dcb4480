"""The inverses of WoodFisher and M-FAC: the dense inverse is the oracle of products, scores and updates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from sparsebench.builtin.methods._fisher import Inverse, parts, saliency, updated
from sparsebench.builtin.methods._mfac import MatrixFree
from sparsebench.builtin.methods._woodfisher import BlockInverse

SIZES, COUNT, DAMP = (30, 7, 24), 20, 1e-5


def gradients(count: int = COUNT, weights: int = sum(SIZES)) -> Tensor:
    """Of many sizes, as those of real layers are."""
    draw = torch.Generator().manual_seed(0)
    return torch.randn(count, weights, generator=draw) * torch.logspace(-2, 1, weights)


def made(inverse: type[Inverse], rows: Tensor, block: int, sizes: Sequence[int] = SIZES, damp: float = DAMP) -> Inverse:
    """From slabs of unequal sizes."""
    result = inverse(sizes, len(rows), damp, block)
    for slab in (rows[:1], rows[1:9], rows[9:]):
        if len(slab):
            result.add(slab)
    return result


def dense(rows: Tensor, block: int, sizes: Sequence[int] = SIZES, damp: float = DAMP) -> Tensor:
    """(damp·I + GᵀG/m), zero between blocks, inverted as it stands."""
    owner, blocks = [], 0
    for size in sizes:
        count = -(-size // block)
        length = -(-size // count)
        owner += [blocks + i // length for i in range(size)]
        blocks += count
    same = torch.tensor(owner)[:, None] == torch.tensor(owner)
    fisher = rows.double().T @ rows.double() / len(rows)
    return torch.linalg.inv(damp * torch.eye(len(owner), dtype=torch.float64) + fisher * same)


def equals_the_dense_inverse(inverse: type[Inverse]) -> None:
    """Diagonal and products, for blocks that divide the layers, that do not, and that are whole layers."""
    rows, vector = gradients(), torch.linspace(-1, 1, sum(SIZES), dtype=torch.float64)
    for block in (1, 4, 10, 30, 1000):
        expected, found = dense(rows, block), made(inverse, rows, block)
        torch.testing.assert_close(found.diagonal(), expected.diagonal(), rtol=1e-7, atol=0)
        torch.testing.assert_close(found.product(vector), expected @ vector, rtol=1e-7, atol=1e-6)


def ranks_by_magnitude_where_all_directions_are_equal(inverse: type[Inverse]) -> None:
    """Gradients that are an orthonormal basis: F is a multiple of I, so nothing makes up for anything."""
    size = sum(SIZES)
    draw = torch.Generator().manual_seed(1)
    basis = torch.linalg.qr(torch.randn(size, size, generator=draw, dtype=torch.float64)).Q.float()
    weights = torch.randn(size, generator=draw, dtype=torch.float64)
    found = made(inverse, basis * 3, 1000, (size,))
    diagonal = found.diagonal()
    torch.testing.assert_close(diagonal, torch.full_like(diagonal, 1 / (DAMP + 9 / size)), rtol=1e-4, atol=0)
    assert torch.equal(saliency(weights, diagonal).argsort(), weights.abs().argsort())
    keep = weights.abs() > weights.abs().median()
    after = updated(weights, found, diagonal, ~keep, keep)
    torch.testing.assert_close(after, weights * keep, rtol=1e-4, atol=1e-5)


def without(rows: Tensor, weights: Tensor, gone: Sequence[int]) -> Tensor:
    """The minimum of ½ (v - w)ᵀ F (v - w) over v that are 0 at `gone`, by Lagrange's equations."""
    size = len(weights)
    fisher = DAMP * torch.eye(size, dtype=torch.float64) + rows.double().T @ rows.double() / len(rows)
    unit = torch.eye(size, dtype=torch.float64)[list(gone)]
    system = torch.cat([torch.cat([fisher, unit.T], 1), torch.cat([unit, torch.zeros(len(gone), len(gone))], 1)])
    right = torch.cat([fisher @ weights, torch.zeros(len(gone), dtype=torch.float64)])
    return torch.linalg.solve(system, right)[:size]


def one_removed_weight_is_the_minimum(inverse: type[Inverse], update: Callable[..., Tensor] = updated) -> None:
    """It is exactly 0, the rest is the brute-force minimiser, and what that costs is the saliency."""
    rows = gradients(weights=30) / torch.logspace(-2, 1, 30)
    weights = torch.linspace(-2, 3, 30, dtype=torch.float64)
    found = made(inverse, rows, 1000, (30,))
    diagonal, fisher = found.diagonal(), torch.linalg.inv(dense(rows, 1000, (30,)))
    for q in range(30):
        keep = torch.arange(30) != q
        after = update(weights, found, diagonal, ~keep, keep)
        assert after[q] == 0
        torch.testing.assert_close(after, without(rows, weights, [q]), rtol=1e-7, atol=1e-7)
        step = after - weights
        torch.testing.assert_close(step @ fisher @ step / 2, saliency(weights, diagonal)[q], rtol=1e-6, atol=1e-9)


def last_dropped(of: type[Inverse]) -> type[Inverse]:
    """Published M-FAC: the last row stays zero, and m counts it."""

    class LastDropped(of):  # type: ignore[misc, valid-type]
        seen = 0

        def add(self, rows: Tensor) -> None:
            self.seen += len(rows)
            if self.seen == self.count:
                rows = torch.cat([rows[:-1], torch.zeros_like(rows[-1:])])
            super().add(rows)

    return LastDropped


def one_more_in_the_denominator(of: type[Inverse]) -> type[Inverse]:
    class OneMore(of):  # type: ignore[misc, valid-type]
        def add(self, rows: Tensor) -> None:
            super().add(rows * (self.count / (self.count + 1)) ** 0.5)

    return OneMore


class InFloat32(BlockInverse):
    """What 1/damp - … leaves of seven digits."""

    def add(self, rows: Tensor) -> None:
        super().add(rows)
        self._blocks = [block.float().double() for block in self._blocks]


def unmasked(weights: Tensor, inverse: Inverse, diagonal: Tensor, removed: Tensor, keep: Tensor) -> Tensor:
    return weights - inverse.product(torch.where(removed, weights / diagonal, 0.0))


def uncorrected(weights: Tensor, inverse: Inverse, diagonal: Tensor, removed: Tensor, keep: Tensor) -> Tensor:
    return weights * keep


KINDS = [BlockInverse, MatrixFree]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", [last_dropped, one_more_in_the_denominator])
@pytest.mark.parametrize(
    "oracle",
    [equals_the_dense_inverse, ranks_by_magnitude_where_all_directions_are_equal, one_removed_weight_is_the_minimum],
)
def test_the_inverse_passes_and_its_twin_fails(
    oracle: Callable[..., None], fault: Callable[..., Any], kind: type[Inverse]
) -> None:
    oracle(kind)
    with pytest.raises(AssertionError):
        oracle(fault(kind))


def test_seven_digits_are_too_few() -> None:
    with pytest.raises(AssertionError):
        equals_the_dense_inverse(InFloat32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrong", [unmasked, uncorrected])
def test_a_wrong_update_is_found(wrong: Callable[..., Tensor], kind: type[Inverse]) -> None:
    with pytest.raises(AssertionError):
        one_removed_weight_is_the_minimum(kind, wrong)


def test_blocks_are_as_even_as_can_be() -> None:
    assert [parts(n, 128) for n in (1, 128, 129, 432, 1000)] == [(1, 1), (1, 128), (2, 65), (4, 108), (8, 125)]
