"""Replaces sys.stdout."""

from __future__ import annotations

import io
import sys
from typing import Any

from sparsebench.plugin import BackendSpec, hookimpl
from sparsebench.testing.honest import HonestBackend, HonestKernel

EXPECTED = {"status": "wrong", "reason": r"sys.stdout"}


class Kernel(HonestKernel):
    def forward(self, x: Any, bias: Any = None) -> Any:
        sys.stdout = io.StringIO()
        return super().forward(x, bias)


def backend() -> HonestBackend:
    return HonestBackend(Kernel)


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="replaces-stdout", summary="replaces sys.stdout", load=f"{__name__}:backend", ops=("linear", "conv2d")
        )
    ]
