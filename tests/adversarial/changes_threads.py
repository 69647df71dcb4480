"""Sets the number of threads that torch uses."""

from __future__ import annotations

from typing import Any

from sparsebench.plugin import BackendSpec, hookimpl
from sparsebench.testing.honest import HonestBackend, HonestKernel

EXPECTED = {"status": "wrong", "reason": r"number of threads"}


class Kernel(HonestKernel):
    def forward(self, x: Any, bias: Any = None) -> Any:
        import torch

        torch.set_num_threads(torch.get_num_threads() + 1)
        return super().forward(x, bias)


def backend() -> HonestBackend:
    return HonestBackend(Kernel)


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="changes-threads",
            summary="sets the number of threads that torch uses",
            load=f"{__name__}:backend",
            ops=("linear", "conv2d"),
        )
    ]
