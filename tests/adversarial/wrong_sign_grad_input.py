"""Has one sign changed in grad_input."""

from __future__ import annotations

from typing import Any

from sparsebench.plugin import BackendSpec, hookimpl
from sparsebench.testing.honest import HonestBackend, HonestKernel

EXPECTED = {"status": "wrong", "reason": r"^grad_input is off"}


class Kernel(HonestKernel):
    def backward(self, x: Any, grad_output: Any, needs: Any = (True, True), saved: Any = None) -> Any:
        grad_input, grad_values = super().backward(x, grad_output, needs)
        if grad_input is not None:
            grad_input[:, 0] = -grad_input[:, 0]
        return grad_input, grad_values


def backend() -> HonestBackend:
    return HonestBackend(Kernel)


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="wrong-sign-grad-input",
            summary="has one sign changed in grad_input",
            load=f"{__name__}:backend",
            ops=("linear", "conv2d"),
        )
    ]
