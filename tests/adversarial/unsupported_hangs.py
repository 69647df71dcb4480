"""Never says what it cannot do."""

from __future__ import annotations

import time

from sparsebench.plugin import BackendSpec, Problem, hookimpl
from sparsebench.testing.honest import HonestBackend

EXPECTED = {"status": "timeout", "reason": r""}


class Backend(HonestBackend):
    def unsupported(self, problem: Problem) -> str | None:
        time.sleep(3600)
        return None


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="unsupported-hangs",
            summary="never says what it cannot do",
            load=f"{__name__}:Backend",
            ops=("linear", "conv2d"),
        )
    ]
