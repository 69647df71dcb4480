"""Has a spec for an operation that does not exist."""

from __future__ import annotations

from sparsebench.plugin import BackendSpec, hookimpl

EXPECTED = {"status": "quarantined", "reason": r"ops"}


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(name="spec-unknown-op", summary="an op nobody knows", load=f"{__name__}:Backend", ops=("conv7d",))
    ]
