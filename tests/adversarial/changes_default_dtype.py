"""Sets torch's default dtype."""

from __future__ import annotations

from typing import Any

from sparsebench.plugin import BackendSpec, hookimpl
from sparsebench.testing.honest import HonestBackend, HonestKernel

EXPECTED = {"status": "wrong", "reason": r"default dtype"}


class Kernel(HonestKernel):
    def forward(self, x: Any, bias: Any = None) -> Any:
        import torch

        torch.set_default_dtype(torch.float64)
        return super().forward(x, bias)


def backend() -> HonestBackend:
    return HonestBackend(Kernel)


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="changes-default-dtype",
            summary="sets torch's default dtype",
            load=f"{__name__}:backend",
            ops=("linear", "conv2d"),
        )
    ]
