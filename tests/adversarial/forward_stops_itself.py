"""Stops its own process with SIGSTOP."""

from __future__ import annotations

import os
import signal
from typing import Any

from sparsebench.plugin import BackendSpec, hookimpl
from sparsebench.testing.honest import HonestBackend, HonestKernel

EXPECTED = {"status": "timeout", "reason": r""}


class Kernel(HonestKernel):
    def forward(self, x: Any, bias: Any = None) -> Any:
        os.kill(os.getpid(), signal.SIGSTOP)
        return super().forward(x, bias)


def backend() -> HonestBackend:
    return HonestBackend(Kernel)


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="forward-stops-itself",
            summary="stops its own process with SIGSTOP",
            load=f"{__name__}:backend",
            ops=("linear", "conv2d"),
        )
    ]
