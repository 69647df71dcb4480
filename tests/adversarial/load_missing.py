"""Names an object that its module does not have."""

from __future__ import annotations

from sparsebench.plugin import BackendSpec, hookimpl

EXPECTED = {"status": "error", "reason": r"AttributeError"}


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="load-missing",
            summary="names an object that its module does not have",
            load=f"{__name__}:Nothing",
            ops=("linear", "conv2d"),
        )
    ]
