"""Starts a thread that never ends; its results are right."""

from __future__ import annotations

import threading
from typing import Any

from sparsebench.plugin import BackendSpec, hookimpl
from sparsebench.testing.honest import HonestBackend, HonestKernel

EXPECTED = {"status": "ok", "reason": r""}


class Kernel(HonestKernel):
    def forward(self, x: Any, bias: Any = None) -> Any:
        if threading.active_count() < 2:
            threading.Thread(target=threading.Event().wait, daemon=False).start()
        return super().forward(x, bias)


def backend() -> HonestBackend:
    return HonestBackend(Kernel)


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="spawns-thread",
            summary="starts a thread that never ends; its results are right",
            load=f"{__name__}:backend",
            ops=("linear", "conv2d"),
        )
    ]
