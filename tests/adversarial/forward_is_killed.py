"""Is killed with SIGKILL in forward."""

from __future__ import annotations

import os
import signal
from typing import Any

from sparsebench.plugin import BackendSpec, hookimpl
from sparsebench.testing.honest import HonestBackend, HonestKernel

EXPECTED = {"status": "crash|oom", "reason": r"9|SIGKILL"}


class Kernel(HonestKernel):
    def forward(self, x: Any, bias: Any = None) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(x, bias)


def backend() -> HonestBackend:
    return HonestBackend(Kernel)


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="forward-is-killed",
            summary="is killed with SIGKILL in forward",
            load=f"{__name__}:backend",
            ops=("linear", "conv2d"),
        )
    ]
