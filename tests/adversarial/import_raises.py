"""Raises when it is imported."""

from __future__ import annotations

from sparsebench.plugin import BackendSpec, hookimpl

EXPECTED = {"status": "quarantined", "reason": r"ImportError: no module named nowhere"}

raise ImportError("no module named nowhere")


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="import-raises",
            summary="raises when it is imported",
            load=f"{__name__}:Backend",
            ops=("linear", "conv2d"),
        )
    ]
