"""Dense torch, the baseline that everything is compared with, and the same in bfloat16."""

from __future__ import annotations

from sparsebench.plugin import BackendSpec, hookimpl

_LAYOUTS = {"layout": ("auto", "nchw", "channels-last")}


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    """The two dense backends."""
    return [
        BackendSpec(
            name="torch-dense",
            summary="dense torch, the baseline; conv2d in the faster of NCHW and channels-last",
            load="sparsebench.builtin.backends._torch_dense:TorchDense",
            ops=("linear", "conv2d"),
            dtypes=("float32", "float64"),
            options=_LAYOUTS,
        ),
        BackendSpec(
            name="torch-dense-bf16",
            summary="dense torch in bfloat16 with float32 in and out; another precision class",
            load="sparsebench.builtin.backends._torch_dense:TorchDenseBfloat16",
            ops=("linear", "conv2d"),
            precision="bfloat16",
            options=_LAYOUTS,
        ),
    ]
