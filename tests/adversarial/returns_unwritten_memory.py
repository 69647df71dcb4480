"""Leaves the last column of its output unwritten."""

from __future__ import annotations

from typing import Any

from sparsebench.plugin import BackendSpec, hookimpl
from sparsebench.testing.honest import HonestBackend, HonestKernel

EXPECTED = {"status": "wrong", "reason": r"NaN"}


class Kernel(HonestKernel):
    def forward(self, x: Any, bias: Any = None) -> Any:
        right = super().forward(x, bias)
        output = right.new_empty(right.shape)
        output[:, :-1] = right[:, :-1]
        return output


def backend() -> HonestBackend:
    return HonestBackend(Kernel)


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="returns-unwritten-memory",
            summary="leaves the last column of its output unwritten",
            load=f"{__name__}:backend",
            ops=("linear", "conv2d"),
        )
    ]
