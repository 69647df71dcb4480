"""Returns zeros, the fastest kernel of all."""

from __future__ import annotations

from typing import Any

from sparsebench.plugin import BackendSpec, hookimpl
from sparsebench.testing.honest import HonestBackend, HonestKernel

EXPECTED = {"status": "wrong", "reason": r"all zeros"}


class Kernel(HonestKernel):
    def forward(self, x: Any, bias: Any = None) -> Any:
        return super().forward(x, bias).zero_()


def backend() -> HonestBackend:
    return HonestBackend(Kernel)


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="returns-zeros",
            summary="returns zeros, the fastest kernel of all",
            load=f"{__name__}:backend",
            ops=("linear", "conv2d"),
        )
    ]
