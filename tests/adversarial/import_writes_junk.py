"""Writes junk to every file and pipe that is open, when it is imported."""

from __future__ import annotations

import contextlib
import os

from sparsebench.plugin import BackendSpec, hookimpl

EXPECTED = {"status": "quarantined", "reason": r"junk"}

for descriptor in range(3, 64):
    with contextlib.suppress(OSError):
        os.write(descriptor, b"[junk")


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="import-writes-junk",
            summary="writes junk to every file and pipe that is open, when it is imported",
            load=f"{__name__}:Backend",
            ops=("linear", "conv2d"),
        )
    ]
