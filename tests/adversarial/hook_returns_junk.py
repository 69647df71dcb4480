"""Has a hook that returns no list of specs."""

from __future__ import annotations

from sparsebench.plugin import BackendSpec, hookimpl

EXPECTED = {"status": "quarantined", "reason": r"must return a list"}


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return {"name": "hook-returns-junk"}  # type: ignore[return-value]
