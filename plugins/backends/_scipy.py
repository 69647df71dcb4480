"""SciPy CSR matrices over the same memory as torch's values: one of W, one of its transpose."""

from __future__ import annotations

import torch
from scipy import sparse
from torch import Tensor

from sparsebench.builtin.backends._lowered import Csr, LoweredKernel
from sparsebench.plugin import Problem, SparseWeight


class Scipy:
    """The backend."""

    def unsupported(self, problem: Problem) -> str | None:
        """Nothing is."""
        return None

    def bind(self, problem: Problem, weight: SparseWeight) -> LoweredKernel:
        """A kernel over two CSR matrices."""
        csr = Csr(problem, weight)
        note = "grad_weight: torch.sparse.sampled_addmm"
        return LoweredKernel(problem, csr, _Products(csr, weight.values), weight.values.dtype, note)


class _Products:
    def __init__(self, csr: Csr, values: Tensor) -> None:
        self.order = csr.order
        self.values, self.transposed_values = values.clone(), values[csr.order]
        # scipy keeps explicit zeros as long as nobody calls eliminate_zeros
        self.matrix = sparse.csr_matrix(
            (self.values.numpy(), csr.indices.numpy(), csr.indptr.numpy()), shape=csr.shape, copy=False
        )
        self.transposed = sparse.csr_matrix(
            (self.transposed_values.numpy(), csr.transposed_indices.numpy(), csr.transposed_indptr.numpy()),
            shape=(csr.shape[1], csr.shape[0]),
            copy=False,
        )

    def multiply(self, x: Tensor) -> Tensor:
        return torch.from_numpy(self.matrix @ x.numpy())

    def multiply_transposed(self, grad: Tensor) -> Tensor:
        return torch.from_numpy(self.transposed @ grad.numpy())

    def set_values(self, values: Tensor) -> None:
        self.values.copy_(values)
        self.transposed_values.copy_(values[self.order])
