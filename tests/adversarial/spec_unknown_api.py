"""Is written for an API of the future."""

from __future__ import annotations

from sparsebench.plugin import BackendSpec, hookimpl

EXPECTED = {"status": "quarantined", "reason": r"API 99"}


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="spec-unknown-api",
            summary="is written for an API of the future",
            load=f"{__name__}:Backend",
            ops=("linear", "conv2d"),
            api=99,
        )
    ]
