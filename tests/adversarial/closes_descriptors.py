"""Closes files that are not its own."""

from __future__ import annotations

import os
from typing import Any

from sparsebench.plugin import BackendSpec, hookimpl
from sparsebench.testing.honest import HonestBackend, HonestKernel

EXPECTED = {"status": "crash", "reason": r""}


class Kernel(HonestKernel):
    def forward(self, x: Any, bias: Any = None) -> Any:
        os.closerange(3, 50)
        return super().forward(x, bias)


def backend() -> HonestBackend:
    return HonestBackend(Kernel)


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="closes-descriptors",
            summary="closes files that are not its own",
            load=f"{__name__}:backend",
            ops=("linear", "conv2d"),
        )
    ]
