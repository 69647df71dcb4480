"""Changes the working directory."""

from __future__ import annotations

import os
from typing import Any

from sparsebench.plugin import BackendSpec, hookimpl
from sparsebench.testing.honest import HonestBackend, HonestKernel

EXPECTED = {"status": "wrong", "reason": r"working directory"}


class Kernel(HonestKernel):
    def forward(self, x: Any, bias: Any = None) -> Any:
        os.chdir("/")
        return super().forward(x, bias)


def backend() -> HonestBackend:
    return HonestBackend(Kernel)


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="changes-directory",
            summary="changes the working directory",
            load=f"{__name__}:backend",
            ops=("linear", "conv2d"),
        )
    ]
