"""Returns float64."""

from __future__ import annotations

from typing import Any

from sparsebench.plugin import BackendSpec, hookimpl
from sparsebench.testing.honest import HonestBackend, HonestKernel

EXPECTED = {"status": "wrong", "reason": r"float64 instead of torch.float32"}


class Kernel(HonestKernel):
    def forward(self, x: Any, bias: Any = None) -> Any:
        return super().forward(x, bias).double()


def backend() -> HonestBackend:
    return HonestBackend(Kernel)


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="forward-returns-wrong-dtype",
            summary="returns float64",
            load=f"{__name__}:backend",
            ops=("linear", "conv2d"),
        )
    ]
