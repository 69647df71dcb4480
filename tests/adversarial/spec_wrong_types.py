"""Has a spec with a number where a name belongs."""

from __future__ import annotations

from sparsebench.plugin import BackendSpec, hookimpl

EXPECTED = {"status": "quarantined", "reason": r"BackendSpec"}


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [BackendSpec(name=7, summary="", load="nowhere:Nothing", ops=("linear",))]  # type: ignore[arg-type]
