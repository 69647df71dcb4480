"""SparseWeight, the canonical CSR of a weight, and the seeded weights and inputs that cases are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsebench.errors import ProblemError


@dataclass(frozen=True, eq=False)
class SparseWeight:
    """An immutable snapshot of a sparse weight.

    `shape` is that of the dense weight: [out, in] or [out, in/groups, kh, kw]. `indptr` [out + 1] and `indices` [nnz]
    (int32) with `values` [nnz] are the CSR of the weight viewed as [out, -1]: rows in order, columns ascending, no
    duplicates, column = (ci·kh + ky)·kw + kx with ci within the row's group. The *pattern* counts, not the values: an
    explicit zero is kept.
    """

    shape: tuple[int, ...]
    indptr: Tensor
    indices: Tensor
    values: Tensor

    @classmethod
    def from_dense(cls, weight: Tensor, mask: Tensor | None = None) -> SparseWeight:
        """The CSR of `weight` where `mask` (bool, same shape; default: the non-zeros) is True. Copies."""
        weight = weight.detach()
        kept = (weight != 0 if mask is None else mask).reshape(weight.shape[0], -1)
        if mask is not None and (mask.dtype != torch.bool or mask.shape != weight.shape):
            raise ProblemError(
                f"mask is {mask.dtype} {tuple(mask.shape)}; it must be bool of the weight's shape {tuple(weight.shape)}"
            )
        indptr = torch.zeros(weight.shape[0] + 1, dtype=torch.int32)
        torch.cumsum(kept.sum(1), 0, out=(counts := torch.empty(weight.shape[0], dtype=torch.int64)))
        indptr[1:] = counts
        indices = kept.nonzero()[:, 1].to(torch.int32).contiguous()
        return cls(tuple(weight.shape), indptr, indices, weight.reshape(weight.shape[0], -1)[kept].clone())

    @property
    def nnz(self) -> int:
        """How many weights the pattern keeps."""
        return self.values.numel()

    @property
    def rows(self) -> int:
        """Rows of the matrix view, the output features."""
        return self.shape[0]

    @property
    def columns(self) -> int:
        """Columns of the matrix view."""
        return int(torch.Size(self.shape[1:]).numel())

    def row_ids(self) -> Tensor:
        """The row of every non-zero, int64 [nnz]."""
        counts = (self.indptr[1:] - self.indptr[:-1]).long()
        return torch.repeat_interleave(torch.arange(self.rows), counts)

    def flat_ids(self) -> Tensor:
        """The position of every non-zero in the flattened dense weight, int64 [nnz]."""
        return self.row_ids() * self.columns + self.indices.long()

    def to_dense(self) -> Tensor:
        """A new dense tensor of `shape`."""
        dense = self.values.new_zeros(self.rows * self.columns)
        dense[self.flat_ids()] = self.values
        return dense.reshape(self.shape)

    def mask(self) -> Tensor:
        """A new bool tensor of `shape`, True where the pattern keeps a weight."""
        kept = torch.zeros(self.rows * self.columns, dtype=torch.bool)
        kept[self.flat_ids()] = True
        return kept.reshape(self.shape)

    def with_values(self, values: Tensor) -> SparseWeight:
        """The same pattern with other values [nnz] (copied)."""
        if values.shape != self.values.shape:
            raise ProblemError(f"{tuple(values.shape)} values for a pattern of {self.nnz} non-zeros")
        return SparseWeight(self.shape, self.indptr, self.indices, values.detach().clone())

    def gather(self, dense: Tensor) -> Tensor:
        """The elements of a dense tensor of `shape` that the pattern keeps, in CSR order [nnz]."""
        return dense.reshape(-1)[self.flat_ids()]


def from_csr(shape: Sequence[int], indptr: Tensor, indices: Tensor, values: Tensor) -> SparseWeight:
    """A checked `SparseWeight` from CSR parts; raises `ProblemError` naming the first rule that is broken."""
    weight = SparseWeight(tuple(shape), indptr.to(torch.int32), indices.to(torch.int32), values.detach().clone())
    if indptr.shape != (weight.rows + 1,) or int(indptr[0]) != 0 or int(indptr[-1]) != indices.numel():
        raise ProblemError(f"indptr does not describe {weight.rows} rows of {indices.numel()} indices in all")
    if values.shape != indices.shape or bool((weight.indptr.diff() < 0).any()):
        raise ProblemError("indptr must not decrease, and there must be one value for each index")
    if weight.nnz and (int(weight.indices.min()) < 0 or int(weight.indices.max()) >= weight.columns):
        raise ProblemError(f"an index lies outside the {weight.columns} columns")
    if weight.nnz > 1 and bool((weight.flat_ids().diff() <= 0).any()):
        raise ProblemError("indices must ascend within each row, without duplicates")
    return weight
