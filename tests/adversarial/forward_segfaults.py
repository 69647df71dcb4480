"""Dies of a segmentation fault in forward."""

from __future__ import annotations

import ctypes
from typing import Any

from sparsebench.plugin import BackendSpec, hookimpl
from sparsebench.testing.honest import HonestBackend, HonestKernel

EXPECTED = {"status": "crash", "reason": r"11|SIGSEGV"}


class Kernel(HonestKernel):
    def forward(self, x: Any, bias: Any = None) -> Any:
        ctypes.string_at(0)
        return super().forward(x, bias)


def backend() -> HonestBackend:
    return HonestBackend(Kernel)


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="forward-segfaults",
            summary="dies of a segmentation fault in forward",
            load=f"{__name__}:backend",
            ops=("linear", "conv2d"),
        )
    ]
