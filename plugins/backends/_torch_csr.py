"""Sparse CSR tensors of torch: one of W for forward, one of its transpose for grad_input."""

from __future__ import annotations

from torch import Tensor

from sparsebench.builtin.backends._lowered import Csr, LoweredKernel, sparse_csr
from sparsebench.plugin import Problem, SparseWeight


class TorchCsr:
    """The backend."""

    def unsupported(self, problem: Problem) -> str | None:
        """Nothing is."""
        return None

    def bind(self, problem: Problem, weight: SparseWeight) -> LoweredKernel:
        """A kernel over two CSR tensors."""
        csr = Csr(problem, weight)
        return LoweredKernel(problem, csr, _Products(csr, weight.values), weight.values.dtype, "")


class _Products:
    def __init__(self, csr: Csr, values: Tensor) -> None:
        self.order = csr.order
        self.values, self.transposed_values = values.clone(), values[csr.order]
        self.matrix = sparse_csr(csr.indptr, csr.indices, self.values, csr.shape)
        self.transposed = sparse_csr(
            csr.transposed_indptr,
            csr.transposed_indices,
            self.transposed_values,
            (csr.shape[1], csr.shape[0]),
        )

    def multiply(self, x: Tensor) -> Tensor:
        return self.matrix @ x

    def multiply_transposed(self, grad: Tensor) -> Tensor:
        return self.transposed @ grad

    def set_values(self, values: Tensor) -> None:
        self.values.copy_(values)
        self.transposed_values.copy_(values[self.order])
