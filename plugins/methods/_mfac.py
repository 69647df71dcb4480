"""M-FAC: products with the inverse empirical Fisher matrix of a whole model, which is never written down.

Frantar, Kurtic & Alistarh, "M-FAC: Efficient Matrix-Free Approximations of Second-Order Information", NeurIPS 2021,
section 3. With the gradients G [m, weights], (damp·I + GᵀG/m)⁻¹ = (I - Gᵀ (m·damp·I + GGᵀ)⁻¹ G) / damp: all that has to
be solved is m x m. The published code leaves the last row of G at zero; here every gradient counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import torch
from torch import Tensor

from sparsebench.builtin.methods._fisher import FisherPruning, Inverse, parts

WIDTH = 8192  # columns of G that are float64 at a time


class MatrixFree(Inverse):
    """G in float32 and an m x m factor for every block; block 0 is the whole model. Time is m² operations a weight."""

    def __init__(self, sizes: Sequence[int], count: int, damp: float, block: int) -> None:
        super().__init__(sizes, count, damp, block)
        self._gradients = torch.zeros(count, sum(sizes))
        self._added = 0

    @classmethod
    def memory(cls, sizes: Sequence[int], count: int, block: int) -> float:
        """Bytes of the gradients and of the factors."""
        return 4.0 * count * sum(sizes) + 8.0 * count**2 * len(spans(sizes, block))

    def add(self, gradients: Tensor) -> None:
        """Keep them."""
        self._gradients[self._added : self._added + len(gradients)] = gradients
        self._added += len(gradients)

    @cached_property
    def _factors(self) -> list[tuple[int, int, Tensor]]:
        """(first, end, L) of every block, L Lᵀ = m·damp·I + G Gᵀ [m, m]."""
        assert self._added == self.count, "asked before every gradient was there"
        found = []
        for first, end in spans(self.sizes, self.block):
            gram = torch.eye(self.count, dtype=torch.float64) * (self.count * self.damp)
            for piece in self._columns(first, end):
                gram.addmm_(piece, piece.mT)
            found.append((first, end, torch.linalg.cholesky(gram)))
        return found

    def _columns(self, first: int, end: int) -> Iterator[Tensor]:
        """G of a block [m, some], in float64, a few columns at a time."""
        return map(Tensor.double, self._gradients[:, first:end].split(WIDTH, dim=1))

    def diagonal(self) -> Tensor:
        """(1 - |L⁻¹ G e_q|²) / damp."""
        found = []
        for first, end, factor in self._factors:
            for piece in self._columns(first, end):
                found.append(1 - torch.linalg.solve_triangular(factor, piece, upper=False).square().sum(0))
        return torch.cat(found) / self.damp

    def product(self, vector: Tensor) -> Tensor:
        """Two products with G, and one m x m system."""
        result = vector.double().clone()
        for first, end, factor in self._factors:
            piece = result[first:end]
            short = sum(g @ x for g, x in zip(self._columns(first, end), piece.split(WIDTH), strict=True))
            solved = torch.cholesky_solve(torch.as_tensor(short)[:, None], factor)[:, 0]
            piece -= torch.cat([solved @ g for g in self._columns(first, end)])
        return result / self.damp


def spans(sizes: Sequence[int], block: int) -> list[tuple[int, int]]:
    """(first, end) of the blocks over all weights; block 0 is one of them all."""
    if block == 0:
        return [(0, sum(sizes))]
    found, start = [], 0
    for size in sizes:
        length = parts(size, block)[1]
        found += [(start + at, start + min(at + length, size)) for at in range(0, size, length)]
        start += size
    return found


class MFAC(FisherPruning):
    """Blocks of any size, few gradients."""

    title, inverse, advice = "m-fac", MatrixFree, "use fewer gradients"
    least_block = 0
