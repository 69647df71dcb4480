"""Answers with a number what it cannot do."""

from __future__ import annotations

from sparsebench.plugin import BackendSpec, Problem, hookimpl
from sparsebench.testing.honest import HonestBackend

EXPECTED = {"status": "error", "reason": r"int"}


class Backend(HonestBackend):
    def unsupported(self, problem: Problem) -> str | None:
        return 42  # type: ignore[return-value]


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="unsupported-returns-junk",
            summary="answers with a number what it cannot do",
            load=f"{__name__}:Backend",
            ops=("linear", "conv2d"),
        )
    ]
