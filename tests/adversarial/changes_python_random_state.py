"""Draws from Python's global generator."""

from __future__ import annotations

import random
from typing import Any

from sparsebench.plugin import BackendSpec, hookimpl
from sparsebench.testing.honest import HonestBackend, HonestKernel

EXPECTED = {"status": "wrong", "reason": r"Python's random state"}


class Kernel(HonestKernel):
    def forward(self, x: Any, bias: Any = None) -> Any:
        random.random()
        return super().forward(x, bias)


def backend() -> HonestBackend:
    return HonestBackend(Kernel)


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="changes-python-random-state",
            summary="draws from Python's global generator",
            load=f"{__name__}:backend",
            ops=("linear", "conv2d"),
        )
    ]
