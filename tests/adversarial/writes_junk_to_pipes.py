"""Writes junk to every file and pipe that is open, in forward."""

from __future__ import annotations

import contextlib
import os
from typing import Any

from sparsebench.plugin import BackendSpec, hookimpl
from sparsebench.testing.honest import HonestBackend, HonestKernel

EXPECTED = {"status": "crash", "reason": r""}


class Kernel(HonestKernel):
    def forward(self, x: Any, bias: Any = None) -> Any:
        for descriptor in range(3, 64):
            with contextlib.suppress(OSError):
                os.write(descriptor, b"[junk")
        return super().forward(x, bias)


def backend() -> HonestBackend:
    return HonestBackend(Kernel)


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="writes-junk-to-pipes",
            summary="writes junk to every file and pipe that is open, in forward",
            load=f"{__name__}:backend",
            ops=("linear", "conv2d"),
        )
    ]
