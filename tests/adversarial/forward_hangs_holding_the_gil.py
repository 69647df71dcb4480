"""Sleeps for an hour in C without giving the interpreter away."""

from __future__ import annotations

import ctypes
from typing import Any

from sparsebench.plugin import BackendSpec, hookimpl
from sparsebench.testing.honest import HonestBackend, HonestKernel

EXPECTED = {"status": "timeout", "reason": r""}


class Kernel(HonestKernel):
    def forward(self, x: Any, bias: Any = None) -> Any:
        ctypes.PyDLL(None).sleep(3600)
        return super().forward(x, bias)


def backend() -> HonestBackend:
    return HonestBackend(Kernel)


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="forward-hangs-holding-the-gil",
            summary="sleeps for an hour in C without giving the interpreter away",
            load=f"{__name__}:backend",
            ops=("linear", "conv2d"),
        )
    ]
