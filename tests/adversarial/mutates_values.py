"""Negates the values it is given, in place."""

from __future__ import annotations

from typing import Any

from sparsebench.plugin import BackendSpec, hookimpl
from sparsebench.testing.honest import HonestBackend, HonestKernel

EXPECTED = {"status": "wrong", "reason": r"set_values changed its input"}


class Kernel(HonestKernel):
    def set_values(self, values: Any) -> None:
        super().set_values(values)
        values.neg_()


def backend() -> HonestBackend:
    return HonestBackend(Kernel)


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="mutates-values",
            summary="negates the values it is given, in place",
            load=f"{__name__}:backend",
            ops=("linear", "conv2d"),
        )
    ]
