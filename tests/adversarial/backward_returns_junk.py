"""Returns one gradient where two belong."""

from __future__ import annotations

from typing import Any

from sparsebench.plugin import BackendSpec, hookimpl
from sparsebench.testing.honest import HonestBackend, HonestKernel

EXPECTED = {"status": "wrong", "reason": r"instead of two results"}


class Kernel(HonestKernel):
    def backward(self, x: Any, grad_output: Any, needs: Any = (True, True), saved: Any = None) -> Any:
        return super().backward(x, grad_output)[0]


def backend() -> HonestBackend:
    return HonestBackend(Kernel)


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="backward-returns-junk",
            summary="returns one gradient where two belong",
            load=f"{__name__}:backend",
            ops=("linear", "conv2d"),
        )
    ]
