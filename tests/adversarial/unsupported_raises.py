"""Raises when it is asked what it cannot do."""

from __future__ import annotations

from sparsebench.plugin import BackendSpec, Problem, hookimpl
from sparsebench.testing.honest import HonestBackend

EXPECTED = {"status": "error", "reason": r"ValueError: I cannot say"}


class Backend(HonestBackend):
    def unsupported(self, problem: Problem) -> str | None:
        raise ValueError("I cannot say")


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="unsupported-raises",
            summary="raises when it is asked what it cannot do",
            load=f"{__name__}:Backend",
            ops=("linear", "conv2d"),
        )
    ]
