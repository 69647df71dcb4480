"""Ends its process with code 0 in forward."""

from __future__ import annotations

import os
from typing import Any

from sparsebench.plugin import BackendSpec, hookimpl
from sparsebench.testing.honest import HonestBackend, HonestKernel

EXPECTED = {"status": "crash", "reason": r""}


class Kernel(HonestKernel):
    def forward(self, x: Any, bias: Any = None) -> Any:
        os._exit(0)


def backend() -> HonestBackend:
    return HonestBackend(Kernel)


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="forward-leaves",
            summary="ends its process with code 0 in forward",
            load=f"{__name__}:backend",
            ops=("linear", "conv2d"),
        )
    ]
