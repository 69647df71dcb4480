"""Fills memory with Python objects, page by page."""

from __future__ import annotations

from typing import Any

from sparsebench.plugin import BackendSpec, hookimpl
from sparsebench.testing.honest import HonestBackend, HonestKernel

EXPECTED = {"status": "oom", "reason": r""}


class Kernel(HonestKernel):
    def forward(self, x: Any, bias: Any = None) -> Any:
        eaten = []
        while True:
            eaten.append(b"x" * (64 << 20))


def backend() -> HonestBackend:
    return HonestBackend(Kernel)


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="eats-memory",
            summary="fills memory with Python objects, page by page",
            load=f"{__name__}:backend",
            ops=("linear", "conv2d"),
        )
    ]
