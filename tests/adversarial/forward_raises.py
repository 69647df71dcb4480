"""Raises in forward."""

from __future__ import annotations

from typing import Any

from sparsebench.plugin import BackendSpec, hookimpl
from sparsebench.testing.honest import HonestBackend, HonestKernel

EXPECTED = {"status": "error", "reason": r"RuntimeError: forward failed"}


class Kernel(HonestKernel):
    def forward(self, x: Any, bias: Any = None) -> Any:
        raise RuntimeError("forward failed")


def backend() -> HonestBackend:
    return HonestBackend(Kernel)


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="forward-raises", summary="raises in forward", load=f"{__name__}:backend", ops=("linear", "conv2d")
        )
    ]
