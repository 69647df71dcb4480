"""Scales the gradient it is given, in place."""

from __future__ import annotations

from typing import Any

from sparsebench.plugin import BackendSpec, hookimpl
from sparsebench.testing.honest import HonestBackend, HonestKernel

EXPECTED = {"status": "wrong", "reason": r"changed its input grad_output"}


class Kernel(HonestKernel):
    def backward(self, x: Any, grad_output: Any, needs: Any = (True, True), saved: Any = None) -> Any:
        gradients = super().backward(x, grad_output, needs)
        grad_output.mul_(2)
        return gradients


def backend() -> HonestBackend:
    return HonestBackend(Kernel)


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="mutates-grad-output",
            summary="scales the gradient it is given, in place",
            load=f"{__name__}:backend",
            ops=("linear", "conv2d"),
        )
    ]
