"""Has one sign changed in forward."""

from __future__ import annotations

from typing import Any

from sparsebench.plugin import BackendSpec, hookimpl
from sparsebench.testing.honest import HonestBackend, HonestKernel

EXPECTED = {"status": "wrong", "reason": r"^forward is off"}


class Kernel(HonestKernel):
    def forward(self, x: Any, bias: Any = None) -> Any:
        output = super().forward(x, bias)
        output[:, 0] = -output[:, 0]
        return output


def backend() -> HonestBackend:
    return HonestBackend(Kernel)


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="wrong-sign-forward",
            summary="has one sign changed in forward",
            load=f"{__name__}:backend",
            ops=("linear", "conv2d"),
        )
    ]
