"""oneMKL's sparse product: one handle of W for forward, one of its transpose for grad_input.

The transposed operation on the handle of W was measured at the same speed, but only after the optimizer had made its
own copy of the transpose, which an update of the values then has to reach; two handles are the same memory and no
riddle.
"""

from __future__ import annotations

import weakref

import torch
from torch import Tensor

from sparsebench.builtin.backends._lowered import Csr, LoweredKernel, aligned
from sparsebench.builtin.backends._mkl_library import MklLibrary, find_library
from sparsebench.plugin import Problem, SparseWeight, UnsupportedError

_MISSING = "no oneMKL here: torch was built without one; install it with `pip install mkl`"


class Mkl:
    """The backend; `library` is "auto", "pypi" or "torch"."""

    def __init__(self, library: str = "auto") -> None:
        self.library = library

    def unsupported(self, problem: Problem) -> str | None:
        """Everything, where there is no oneMKL."""
        return None if find_library(self.library) else _MISSING

    def bind(self, problem: Problem, weight: SparseWeight) -> LoweredKernel:
        """A kernel over two handles, which are freed with it."""
        library = find_library(self.library)
        if library is None:
            raise UnsupportedError(_MISSING)
        csr = Csr(problem, weight)
        note = f"oneMKL of {library.name}; grad_weight: torch.sparse.sampled_addmm"
        products = _Products(library, csr, weight.values, problem.positions)
        return LoweredKernel(problem, csr, products, weight.values.dtype, note)


class _Products:
    def __init__(self, library: MklLibrary, csr: Csr, values: Tensor, columns: int) -> None:
        self.library = library
        self.order = csr.order
        transposed = (csr.transposed_indptr, csr.transposed_indices, values[csr.order])
        self.matrix = _Matrix(library, (csr.indptr, csr.indices, values), csr.shape, columns)
        self.transposed = _Matrix(library, transposed, (csr.shape[1], csr.shape[0]), columns)

    def multiply(self, x: Tensor) -> Tensor:
        return self.matrix.multiply(x)

    def multiply_transposed(self, grad: Tensor) -> Tensor:
        return self.transposed.multiply(grad)

    def set_values(self, values: Tensor) -> None:
        self.matrix.set_values(values)
        self.transposed.set_values(values[self.order])


class _Matrix:
    """A handle together with the arrays it points to; an empty pattern has none (oneMKL refuses it)."""

    def __init__(self, library: MklLibrary, csr: tuple[Tensor, Tensor, Tensor], shape: tuple[int, int], columns: int):
        self.library = library
        self.rows = shape[0]
        indptr, indices, self.values = self.arrays = tuple(aligned(part.clone()) for part in csr)
        if self.values.numel():
            self.handle = library.create(indptr, indices, self.values, shape, columns)
            # the finalizer holds the arrays: the handle must go first
            weakref.finalize(self, _destroy, library, self.handle, self.arrays)

    def multiply(self, matrix: Tensor) -> Tensor:
        return self.library.multiply(self.handle, matrix, torch.empty(self.rows, matrix.shape[1], dtype=matrix.dtype))

    def set_values(self, values: Tensor) -> None:
        self.values.copy_(values)
        self.library.update(self.handle, self.values)


def _destroy(library: MklLibrary, handle: int, arrays: tuple[Tensor, ...]) -> None:
    library.destroy(handle)
