"""A kernel made of sparse matrix products: linear as it is, conv2d lowered to one product by im2col.

1. Everything is `W [out, columns] @ X [columns, positions]`: X is the transposed input, or its patches. Groups
   are a shift of the column indices, so the matrix is block diagonal and no backend has to know of them.
2. A backend supplies `Products`; layouts, bias, saving X for backward and empty patterns are here, once.
3. grad_weight needs a product sampled on the pattern. Neither SciPy nor oneMKL has one, so all use torch's, and
   say so.
"""

from __future__ import annotations

import warnings
from typing import Protocol

import torch
from torch import Tensor

from sparsebench.builtin.backends._unfold import fold, unfold
from sparsebench.plugin import Problem, SparseWeight

ALIGNMENT = 64  # bytes; oneMKL halves its speed on operands 16 or 32 bytes off


class Products(Protocol):
    """The two products of a bound CSR matrix W [rows, columns] with at least one non-zero."""

    def multiply(self, x: Tensor) -> Tensor:
        """W @ x for contiguous, aligned x [columns, n]; new [rows, n]."""

    def multiply_transposed(self, grad: Tensor) -> Tensor:
        """W.T @ grad for contiguous, aligned grad [rows, n]; new [columns, n]."""

    def set_values(self, values: Tensor) -> None:
        """Copy new values [nnz] in CSR order."""


class Csr:
    """The lowered matrix: CSR over all input channels and, for the transposed product, its transpose.

    `indptr`, `indices` int32; `transposed_*` the CSR of the transpose; `order` [nnz] int64 such that the values of
    the transpose are `values[order]`.
    """

    def __init__(self, problem: Problem, weight: SparseWeight) -> None:
        rows = weight.row_ids()
        group = rows // (weight.rows // problem.groups)
        indices = weight.indices.long() + group * weight.columns
        self.shape = (weight.rows, weight.columns * problem.groups)
        self.indptr = weight.indptr.clone()
        self.indices = indices.to(torch.int32)
        self.order = torch.argsort(indices, stable=True)
        counts = torch.bincount(indices, minlength=self.shape[1])
        self.transposed_indptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).to(torch.int32)
        self.transposed_indices = rows[self.order].to(torch.int32)


class SampledProduct:
    """`(grad @ x.T)` at the non-zeros of a pattern, by `torch.sparse.sampled_addmm`."""

    def __init__(self, csr: Csr, dtype: torch.dtype) -> None:
        zeros = torch.zeros(csr.indices.numel(), dtype=dtype)
        self.pattern = sparse_csr(csr.indptr, csr.indices, zeros, csr.shape)

    def __call__(self, grad: Tensor, x: Tensor) -> Tensor:
        """grad [rows, n], x [columns, n]; new values [nnz] in CSR order."""
        return torch.sparse.sampled_addmm(self.pattern, grad, x.t(), beta=0.0).values()


def sparse_csr(indptr: Tensor, indices: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    """A torch CSR tensor over these very tensors, without a check: the weight is canonical."""
    with warnings.catch_warnings():
        # torch says once per process that CSR tensors are in beta: a benchmark of them needs no reminder
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(indptr, indices, values, shape, check_invariants=False)


def aligned(tensor: Tensor) -> Tensor:
    """The tensor, contiguous and starting on a cache line; copied only if it is not so already."""
    tensor = tensor.contiguous()
    return tensor if tensor.data_ptr() % ALIGNMENT == 0 else tensor.clone()


class LoweredKernel:
    """The kernel protocol over `Products`."""

    def __init__(self, problem: Problem, csr: Csr, products: Products, dtype: torch.dtype, note: str) -> None:
        self.problem = problem
        self.products = products
        self.rows, self.columns = csr.shape
        self.nnz = csr.indices.numel()
        self.dtype = dtype
        self.sampled = SampledProduct(csr, dtype)
        self.note = note

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """The layer's output; [batch, out] is returned as a transposed view."""
        return self.forward_saving(x, bias)[0]

    def forward_saving(self, x: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The output, and X [columns, positions] for backward."""
        matrix = self._inputs(x)
        out = self.products.multiply(matrix) if self.nnz else matrix.new_zeros(self.rows, matrix.shape[1])
        if bias is not None:
            out += bias[:, None]
        if self.problem.op == "linear":
            return out.t(), matrix
        height, width = self.problem.output_size_of(x.shape[2], x.shape[3])
        return out.view(self.rows, x.shape[0], height, width).transpose(0, 1), matrix

    def backward(
        self,
        x: Tensor,
        grad_output: Tensor,
        needs: tuple[bool, bool] = (True, True),
        saved: Tensor | None = None,
    ) -> tuple[Tensor | None, Tensor | None]:
        """(grad_input, gradient of the values)."""
        grad_input = grad_values = None
        grad = aligned(grad_output.transpose(0, 1).reshape(self.rows, -1)) if any(needs) else grad_output
        if needs[0]:
            grad_input = self._grad_input(x, grad)
        if needs[1]:
            matrix = self._inputs(x) if saved is None else saved
            grad_values = self.sampled(grad, matrix) if self.nnz else x.new_zeros(0)
        return grad_input, grad_values

    def set_values(self, values: Tensor) -> None:
        """Take new values [nnz] in CSR order."""
        if self.nnz:
            self.products.set_values(values.detach().to(self.dtype))

    def _inputs(self, x: Tensor) -> Tensor:
        """X [columns, positions], contiguous and aligned."""
        return aligned(x.t() if self.problem.op == "linear" else unfold(self.problem, x))

    def _grad_input(self, x: Tensor, grad: Tensor) -> Tensor:
        if not self.nnz:
            return torch.zeros_like(x, memory_format=torch.contiguous_format)
        product = self.products.multiply_transposed(grad)
        return product.t() if self.problem.op == "linear" else fold(self.problem, product, x.shape)
