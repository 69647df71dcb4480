"""Aborts in forward."""

from __future__ import annotations

import os
from typing import Any

from sparsebench.plugin import BackendSpec, hookimpl
from sparsebench.testing.honest import HonestBackend, HonestKernel

EXPECTED = {"status": "crash", "reason": r"6|SIGABRT"}


class Kernel(HonestKernel):
    def forward(self, x: Any, bias: Any = None) -> Any:
        os.abort()


def backend() -> HonestBackend:
    return HonestBackend(Kernel)


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="forward-aborts", summary="aborts in forward", load=f"{__name__}:backend", ops=("linear", "conv2d")
        )
    ]
