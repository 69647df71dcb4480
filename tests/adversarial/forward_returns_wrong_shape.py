"""Returns its output without the last row."""

from __future__ import annotations

from typing import Any

from sparsebench.plugin import BackendSpec, hookimpl
from sparsebench.testing.honest import HonestBackend, HonestKernel

EXPECTED = {"status": "wrong", "reason": r"of shape"}


class Kernel(HonestKernel):
    def forward(self, x: Any, bias: Any = None) -> Any:
        return super().forward(x, bias)[:, :-1]


def backend() -> HonestBackend:
    return HonestBackend(Kernel)


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="forward-returns-wrong-shape",
            summary="returns its output without the last row",
            load=f"{__name__}:backend",
            ops=("linear", "conv2d"),
        )
    ]
