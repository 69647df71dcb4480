"""WoodFisher: blocks of the inverse empirical Fisher matrix, by Woodbury's identity from one gradient after the other.

Singh & Alistarh, "WoodFisher: Efficient Second-Order Approximation for Neural Network Compression", NeurIPS 2020,
section 3. Their recursion takes a gradient at a time; here a slab of k at a time, which is the same identity:
H <- H - (G H)ᵀ (m·I + G H Gᵀ)⁻¹ (G H), from H = I / damp.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sparsebench.builtin.methods._fisher import FisherPruning, Inverse, parts


class BlockInverse(Inverse):
    """Explicit blocks of a layer's consecutive weights: memory weights·block, however many gradients there are.

    Time is 4·gradients·block operations a weight, so both grow with the block. By default it is 256: 2 kB a weight,
    half a gigabyte for ResNet-20; the paper's 2,000 would take 4.3.
    """

    def __init__(self, sizes: Sequence[int], count: int, damp: float, block: int) -> None:
        super().__init__(sizes, count, damp, block)
        self._blocks = []  # by layer [blocks, length, length]
        for number, length in (parts(size, block) for size in sizes):
            eye = torch.eye(length, dtype=torch.float64) / damp
            self._blocks.append(eye.repeat(number, 1, 1))

    @classmethod
    def memory(cls, sizes: Sequence[int], count: int, block: int) -> float:
        """Bytes of all blocks."""
        return sum(8.0 * number * length**2 for number, length in (parts(size, block) for size in sizes))

    def add(self, gradients: Tensor) -> None:
        """Woodbury's identity, for all blocks of a layer at once."""
        for inverse, piece in zip(self._blocks, gradients.double().split(self.sizes, dim=1), strict=True):
            slab = self._by_block(piece, inverse)
            product = slab @ inverse
            small = torch.baddbmm(torch.eye(len(piece), dtype=torch.float64) * self.count, product, slab.mT)
            half = torch.linalg.solve_triangular(torch.linalg.cholesky(small), product, upper=False)
            inverse.baddbmm_(half.mT, half, alpha=-1)

    def diagonal(self) -> Tensor:
        """The blocks' diagonals."""
        found = [inverse.diagonal(dim1=1, dim2=2).flatten() for inverse in self._blocks]
        return torch.cat([each[:size] for each, size in zip(found, self.sizes, strict=True)])

    def product(self, vector: Tensor) -> Tensor:
        """Block by block."""
        found = []
        for inverse, piece in zip(self._blocks, vector.double().split(self.sizes), strict=True):
            found.append((self._by_block(piece[None], inverse) @ inverse).flatten()[: len(piece)])
        return torch.cat(found)

    @staticmethod
    def _by_block(rows: Tensor, inverse: Tensor) -> Tensor:
        """[k, weights] as [blocks, k, length]; zeros fill the last block, and stay apart from all others."""
        number, length = inverse.shape[:2]
        padded = F.pad(rows, (0, number * length - rows.shape[1]))
        return padded.view(len(rows), number, length).transpose(0, 1)


class WoodFisher(FisherPruning):
    """Any number of gradients, small blocks."""

    title, inverse, advice = "woodfisher", BlockInverse, "use a smaller block"
