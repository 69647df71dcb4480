"""Kills the process that started it, in forward."""

from __future__ import annotations

import os
import signal
from typing import Any

from sparsebench.plugin import BackendSpec, hookimpl
from sparsebench.testing.honest import HonestBackend, HonestKernel

EXPECTED = {"status": "crash", "reason": r""}


class Kernel(HonestKernel):
    def forward(self, x: Any, bias: Any = None) -> Any:
        os.kill(os.getppid(), signal.SIGKILL)
        return super().forward(x, bias)


def backend() -> HonestBackend:
    return HonestBackend(Kernel)


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="kills-its-parent",
            summary="kills the process that started it, in forward",
            load=f"{__name__}:backend",
            ops=("linear", "conv2d"),
        )
    ]
