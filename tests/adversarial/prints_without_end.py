"""Prints a gibibyte at its first call."""

from __future__ import annotations

import os
from typing import Any

from sparsebench.plugin import BackendSpec, hookimpl
from sparsebench.testing.honest import HonestBackend, HonestKernel

EXPECTED = {"status": "crash|error", "reason": r""}


class Kernel(HonestKernel):
    printed = False

    def forward(self, x: Any, bias: Any = None) -> Any:
        for _ in range(0 if self.printed else 1024):
            os.write(1, bytes(2**20))
        self.printed = True
        return super().forward(x, bias)


def backend() -> HonestBackend:
    return HonestBackend(Kernel)


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="prints-without-end",
            summary="prints a gibibyte at its first call",
            load=f"{__name__}:backend",
            ops=("linear", "conv2d"),
        )
    ]
