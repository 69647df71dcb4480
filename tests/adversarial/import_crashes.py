"""Is killed by a signal when it is imported."""

from __future__ import annotations

import os
import signal

from sparsebench.plugin import BackendSpec, hookimpl

EXPECTED = {"status": "quarantined", "reason": r"signal 11"}

os.kill(os.getpid(), signal.SIGSEGV)


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="import-crashes",
            summary="is killed by a signal when it is imported",
            load=f"{__name__}:Backend",
            ops=("linear", "conv2d"),
        )
    ]
