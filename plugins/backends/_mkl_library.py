"""Finds oneMKL in this environment and calls its inspector-executor sparse product through ctypes.

1. PyPI's `mkl` is preferred: it is newer and has the whole interface. The MKL linked into libtorch_cpu.so exports a
   part of it: no optimize, no hints, no update of values (there the handle reads our array, so writing into it is
   enough).
2. PyPI's is told to use GNU OpenMP, the one torch has loaded: by default it brings in a second OpenMP runtime, and
   two pools of threads in one process make interleaved calls many times slower. That has to happen before its first
   use.
3. 32-bit integers (LP64) in both.
"""

from __future__ import annotations

import ctypes
from functools import cache
from importlib import metadata
from pathlib import Path

import torch
from torch import Tensor

from sparsebench.plugin import UnsupportedError

_GNU_THREADING, _LP64 = 3, 0  # mkl_service.h
_NON_TRANSPOSE, _ROW_MAJOR, _GENERAL, _ZERO_BASED = 10, 101, 20, 0  # mkl_spblas.h
_EXPECTED_CALLS = 1000  # tells the optimizer that its own cost does not matter


class _Description(ctypes.Structure):
    """struct matrix_descr of mkl_spblas.h."""

    _fields_ = (("type", ctypes.c_int), ("mode", ctypes.c_int), ("diag", ctypes.c_int))


class MklLibrary:
    """One loaded oneMKL; `name` is "pypi" or "torch"."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.library = ctypes.CDLL(str(path))
        if name == "pypi":
            self.library.MKL_Set_Threading_Layer(_GNU_THREADING)
            self.library.MKL_Set_Interface_Layer(_LP64)
        self.optimizes = hasattr(self.library, "mkl_sparse_optimize")

    def create(self, indptr: Tensor, indices: Tensor, values: Tensor, shape: tuple[int, int], columns: int) -> int:
        """A handle to CSR arrays, which must outlive it; `columns` is the expected width of the right side."""
        handle = ctypes.c_void_p()
        self._check(
            self._typed("create_csr", values)(
                ctypes.byref(handle), _ZERO_BASED, shape[0], shape[1],
                _pointer(indptr), _pointer(indptr[1:]), _pointer(indices), _pointer(values),
            ),
            "create_csr",
        )  # fmt: skip
        if self.optimizes:
            self._check(
                self.library.mkl_sparse_set_mm_hint(
                    handle, _NON_TRANSPOSE, _Description(_GENERAL, 0, 0), _ROW_MAJOR, columns, _EXPECTED_CALLS
                ),
                "set_mm_hint",
            )
            self._check(self.library.mkl_sparse_optimize(handle), "optimize")
        return int(handle.value or 0)

    def multiply(self, handle: int, matrix: Tensor, out: Tensor) -> Tensor:
        """out [rows, n] = W @ matrix [columns, n], both contiguous; with as many threads as torch has."""
        real = ctypes.c_float if matrix.dtype == torch.float32 else ctypes.c_double
        self.library.MKL_Set_Num_Threads_Local(torch.get_num_threads())
        status = self._typed("mm", matrix)(
            _NON_TRANSPOSE, real(1.0), ctypes.c_void_p(handle), _Description(_GENERAL, 0, 0), _ROW_MAJOR,
            _pointer(matrix), matrix.shape[1], matrix.shape[1], real(0.0), _pointer(out), out.shape[1],
        )  # fmt: skip
        self.library.MKL_Set_Num_Threads_Local(0)
        self._check(status, "mm")
        return out

    def update(self, handle: int, values: Tensor) -> None:
        """New values for an optimized handle, which has its own copy."""
        if self.optimizes:
            status = self._typed("update_values", values)(
                ctypes.c_void_p(handle), values.numel(), None, None, _pointer(values)
            )
            self._check(status, "update_values")

    def destroy(self, handle: int) -> None:
        """Free a handle."""
        self.library.mkl_sparse_destroy(ctypes.c_void_p(handle))

    def _typed(self, name: str, tensor: Tensor) -> ctypes._NamedFuncPointer:
        letter = "s" if tensor.dtype == torch.float32 else "d"
        return getattr(self.library, f"mkl_sparse_{letter}_{name}")

    def _check(self, status: int, name: str) -> None:
        if status:
            raise UnsupportedError(f"mkl_sparse_{name} of {self.name}'s oneMKL failed with status {status}")


def _pointer(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


def _path_of(name: str) -> Path | None:
    """Where the library lies, or None."""
    if name == "torch":
        path = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
        return path if path.exists() and hasattr(ctypes.CDLL(str(path)), "mkl_sparse_s_mm") else None
    try:
        files = metadata.files("mkl") or []
    except metadata.PackageNotFoundError:
        return None
    found = (Path(str(file.locate())).resolve() for file in files if file.name.startswith("libmkl_rt.so"))
    return next((path for path in found if path.exists()), None)


@cache
def find_library(choice: str = "auto") -> MklLibrary | None:
    """The oneMKL of that choice ("auto", "pypi" or "torch"), loaded once; None if it is not here."""
    for name in ("pypi", "torch") if choice == "auto" else (choice,):
        path = _path_of(name)
        if path is not None:
            return MklLibrary(name, path)
    return None
