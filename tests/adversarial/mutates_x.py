"""Scales its input in place."""

from __future__ import annotations

from typing import Any

from sparsebench.plugin import BackendSpec, hookimpl
from sparsebench.testing.honest import HonestBackend, HonestKernel

EXPECTED = {"status": "wrong", "reason": r"changed its input x"}


class Kernel(HonestKernel):
    def forward(self, x: Any, bias: Any = None) -> Any:
        output = super().forward(x, bias)
        x.mul_(2)
        return output


def backend() -> HonestBackend:
    return HonestBackend(Kernel)


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="mutates-x", summary="scales its input in place", load=f"{__name__}:backend", ops=("linear", "conv2d")
        )
    ]
