"""Returns None."""

from __future__ import annotations

from typing import Any

from sparsebench.plugin import BackendSpec, hookimpl
from sparsebench.testing.honest import HonestBackend, HonestKernel

EXPECTED = {"status": "wrong", "reason": r"None instead of a tensor"}


class Kernel(HonestKernel):
    def forward(self, x: Any, bias: Any = None) -> Any:
        return None


def backend() -> HonestBackend:
    return HonestBackend(Kernel)


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="forward-returns-none", summary="returns None", load=f"{__name__}:backend", ops=("linear", "conv2d")
        )
    ]
