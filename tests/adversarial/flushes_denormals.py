"""Makes the CPU flush denormals to zero."""

from __future__ import annotations

from typing import Any

from sparsebench.plugin import BackendSpec, hookimpl
from sparsebench.testing.honest import HonestBackend, HonestKernel

EXPECTED = {"status": "wrong", "reason": r"denormals"}


class Kernel(HonestKernel):
    def forward(self, x: Any, bias: Any = None) -> Any:
        import torch

        torch.set_flush_denormal(True)
        return super().forward(x, bias)


def backend() -> HonestBackend:
    return HonestBackend(Kernel)


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="flushes-denormals",
            summary="makes the CPU flush denormals to zero",
            load=f"{__name__}:backend",
            ops=("linear", "conv2d"),
        )
    ]
