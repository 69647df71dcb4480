"""Returns a tensor that requires grad."""

from __future__ import annotations

from typing import Any

from sparsebench.plugin import BackendSpec, hookimpl
from sparsebench.testing.honest import HonestBackend, HonestKernel

EXPECTED = {"status": "wrong", "reason": r"requires grad"}


class Kernel(HonestKernel):
    def forward(self, x: Any, bias: Any = None) -> Any:
        return super().forward(x, bias).requires_grad_()


def backend() -> HonestBackend:
    return HonestBackend(Kernel)


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="forward-requires-grad",
            summary="returns a tensor that requires grad",
            load=f"{__name__}:backend",
            ops=("linear", "conv2d"),
        )
    ]
