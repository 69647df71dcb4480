"""Implements a hook that does not exist."""

from __future__ import annotations

from sparsebench.plugin import BackendSpec, hookimpl

EXPECTED = {"status": "quarantined", "reason": r"sparsebench_backend\b"}


@hookimpl
def sparsebench_backend() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="hook-misspelt",
            summary="implements a hook that does not exist",
            load=f"{__name__}:Backend",
            ops=("linear", "conv2d"),
        )
    ]
