"""Ignores set_values."""

from __future__ import annotations

from typing import Any

from sparsebench.plugin import BackendSpec, hookimpl
from sparsebench.testing.honest import HonestBackend, HonestKernel

EXPECTED = {"status": "wrong", "reason": r"after set_values is off"}


class Kernel(HonestKernel):
    def set_values(self, values: Any) -> None:
        pass


def backend() -> HonestBackend:
    return HonestBackend(Kernel)


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="ignores-new-values",
            summary="ignores set_values",
            load=f"{__name__}:backend",
            ops=("linear", "conv2d"),
        )
    ]
