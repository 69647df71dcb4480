"""Is right for 60 calls and wrong from then on."""

from __future__ import annotations

from typing import Any

from sparsebench.plugin import BackendSpec, hookimpl
from sparsebench.testing.honest import HonestBackend, HonestKernel

EXPECTED = {"status": "wrong", "reason": r"^after .*off by"}


class Kernel(HonestKernel):
    calls = 0

    def forward(self, x: Any, bias: Any = None) -> Any:
        self.calls += 1
        output = super().forward(x, bias)
        return output if self.calls <= 60 else output * 1.01


def backend() -> HonestBackend:
    return HonestBackend(Kernel)


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="drifts",
            summary="is right for 60 calls and wrong from then on",
            load=f"{__name__}:backend",
            ops=("linear", "conv2d"),
        )
    ]
