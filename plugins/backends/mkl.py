"""oneMKL's inspector-executor sparse product, called through ctypes with the handle kept."""

from __future__ import annotations

from sparsebench.plugin import BackendSpec, hookimpl


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    """One backend; `library` chooses PyPI's mkl or the MKL inside torch (auto: the former if installed)."""
    return [
        BackendSpec(
            name="mkl",
            summary="oneMKL mkl_sparse_?_mm with the handle kept; conv2d through im2col; grad_weight by torch",
            load="sparsebench.builtin.backends._mkl:Mkl",
            peer=True,
            ops=("linear", "conv2d"),
            dtypes=("float32", "float64"),
            options={"library": ("auto", "pypi", "torch")},
        )
    ]
