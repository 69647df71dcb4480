"""Turns garbage collection off for the whole process."""

from __future__ import annotations

import gc
from typing import Any

from sparsebench.plugin import BackendSpec, hookimpl
from sparsebench.testing.honest import HonestBackend, HonestKernel

EXPECTED = {"status": "wrong", "reason": r"garbage collection"}


class Kernel(HonestKernel):
    def forward(self, x: Any, bias: Any = None) -> Any:
        gc.disable()
        return super().forward(x, bias)


def backend() -> HonestBackend:
    return HonestBackend(Kernel)


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="disables-gc",
            summary="turns garbage collection off for the whole process",
            load=f"{__name__}:backend",
            ops=("linear", "conv2d"),
        )
    ]
