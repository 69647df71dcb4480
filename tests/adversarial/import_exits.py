"""Ends the process when it is imported."""

from __future__ import annotations

import os

from sparsebench.plugin import BackendSpec, hookimpl

EXPECTED = {"status": "quarantined", "reason": r"exited with code 3"}

os._exit(3)


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="import-exits",
            summary="ends the process when it is imported",
            load=f"{__name__}:Backend",
            ops=("linear", "conv2d"),
        )
    ]
