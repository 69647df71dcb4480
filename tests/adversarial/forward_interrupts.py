"""Raises KeyboardInterrupt in forward."""

from __future__ import annotations

from typing import Any

from sparsebench.plugin import BackendSpec, hookimpl
from sparsebench.testing.honest import HonestBackend, HonestKernel

EXPECTED = {"status": "error", "reason": r"KeyboardInterrupt"}


class Kernel(HonestKernel):
    def forward(self, x: Any, bias: Any = None) -> Any:
        raise KeyboardInterrupt


def backend() -> HonestBackend:
    return HonestBackend(Kernel)


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="forward-interrupts",
            summary="raises KeyboardInterrupt in forward",
            load=f"{__name__}:backend",
            ops=("linear", "conv2d"),
        )
    ]
