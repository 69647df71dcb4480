"""Starts a process that outlives it and aborts; the child must be gone when the run ends."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from sparsebench.plugin import BackendSpec, Problem, hookimpl
from sparsebench.testing.honest import HonestBackend

if TYPE_CHECKING:
    from sparsebench.weight import SparseWeight

EXPECTED = {"status": "crash", "reason": r"6|SIGABRT"}


class Backend(HonestBackend):
    def bind(self, problem: Problem, weight: SparseWeight) -> Any:
        sleep = [sys.executable, "-c", "import time; time.sleep(3600)", "adversarial-child"]
        subprocess.Popen(sleep)
        os.abort()


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="leaves-a-child-and-aborts",
            summary="starts a process that outlives it and aborts",
            load=f"{__name__}:Backend",
            ops=("linear", "conv2d"),
        )
    ]
