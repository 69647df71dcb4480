"""Changes the weight it was bound to, in forward."""

from __future__ import annotations

from typing import Any

from sparsebench.plugin import BackendSpec, hookimpl
from sparsebench.testing.honest import HonestBackend, HonestKernel

EXPECTED = {"status": "wrong", "reason": r"changed the weight"}


class Kernel(HonestKernel):
    def forward(self, x: Any, bias: Any = None) -> Any:
        self.weight.values.zero_()
        return super().forward(x, bias)


def backend() -> HonestBackend:
    return HonestBackend(Kernel)


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="mutates-weight",
            summary="changes the weight it was bound to, in forward",
            load=f"{__name__}:backend",
            ops=("linear", "conv2d"),
        )
    ]
