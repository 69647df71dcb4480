"""The `cython` backend: one readable Cython kernel for linear and conv2d; the example to copy."""

from __future__ import annotations

from sparsebench.plugin import BackendSpec, hookimpl


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    """One spec; the implementation is imported when a worker loads it."""
    return [
        BackendSpec(
            name="cython",
            summary="readable Cython kernel: vectors along the batch, tiles in registers, OpenMP",
            load="sparsebench.builtin.backends._cython:CythonBackend",
            ops=("linear", "conv2d"),
            dtypes=("float32", "float64"),
        )
    ]
