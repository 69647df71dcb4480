"""Starts a process that outlives it; its results are right. The child must be gone when the run ends."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

from sparsebench.plugin import BackendSpec, Problem, hookimpl
from sparsebench.testing.honest import HonestBackend

if TYPE_CHECKING:
    from sparsebench.weight import SparseWeight

EXPECTED = {"status": "ok", "reason": r""}


class Backend(HonestBackend):
    def bind(self, problem: Problem, weight: SparseWeight) -> Any:
        sleep = [sys.executable, "-c", "import time; time.sleep(3600)", "adversarial-child"]
        subprocess.Popen(sleep)
        return super().bind(problem, weight)


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="leaves-a-child",
            summary="starts a process that outlives it; its results are right",
            load=f"{__name__}:Backend",
            ops=("linear", "conv2d"),
        )
    ]
