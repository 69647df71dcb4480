"""Prints much, to Python's streams and past them; its results are right."""

from __future__ import annotations

import os
import sys
from typing import Any

from sparsebench.plugin import BackendSpec, hookimpl
from sparsebench.testing.honest import HonestBackend, HonestKernel

EXPECTED = {"status": "ok", "reason": r""}


class Kernel(HonestKernel):
    calls = 0

    def forward(self, x: Any, bias: Any = None) -> Any:
        self.calls += 1
        if self.calls < 3:
            print("forward " * 20_000)
            print("forward " * 20_000, file=sys.stderr)
            os.write(1, b'{"t_ns": [1]}\n' * 20_000)
        return super().forward(x, bias)


def backend() -> HonestBackend:
    return HonestBackend(Kernel)


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="prints-much",
            summary="prints much, to Python's streams and past them; its results are right",
            load=f"{__name__}:backend",
            ops=("linear", "conv2d"),
        )
    ]
