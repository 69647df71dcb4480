"""torch's own sparse CSR products: `W @ x`, its transpose, and `sampled_addmm` for grad_weight."""

from __future__ import annotations

from sparsebench.plugin import BackendSpec, hookimpl


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    """One backend."""
    return [
        BackendSpec(
            name="torch-csr",
            summary="torch.sparse CSR products (MKL inside torch); conv2d through im2col",
            load="sparsebench.builtin.backends._torch_csr:TorchCsr",
            ops=("linear", "conv2d"),
            dtypes=("float32", "float64"),
            peer=True,
        )
    ]
