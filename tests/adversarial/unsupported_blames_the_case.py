"""Blames the case when it is asked what it cannot do."""

from __future__ import annotations

from sparsebench.plugin import BackendSpec, Problem, ProblemError, hookimpl
from sparsebench.testing.honest import HonestBackend

EXPECTED = {"status": "error", "reason": r"unsupported\(\) raised ProblemError: I cannot say"}


class Backend(HonestBackend):
    def unsupported(self, problem: Problem) -> str | None:
        raise ProblemError("I cannot say")


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="unsupported-blames-the-case",
            summary="blames the case when it is asked what it cannot do",
            load=f"{__name__}:Backend",
            ops=("linear", "conv2d"),
        )
    ]
