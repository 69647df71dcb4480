"""Calls sys.exit in forward."""

from __future__ import annotations

import sys
from typing import Any

from sparsebench.plugin import BackendSpec, hookimpl
from sparsebench.testing.honest import HonestBackend, HonestKernel

EXPECTED = {"status": "error", "reason": r"SystemExit"}


class Kernel(HonestKernel):
    def forward(self, x: Any, bias: Any = None) -> Any:
        sys.exit(0)


def backend() -> HonestBackend:
    return HonestBackend(Kernel)


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="forward-exits",
            summary="calls sys.exit in forward",
            load=f"{__name__}:backend",
            ops=("linear", "conv2d"),
        )
    ]
