"""Has a hook that raises."""

from __future__ import annotations

from sparsebench.plugin import BackendSpec, hookimpl

EXPECTED = {"status": "quarantined", "reason": r"RuntimeError: the hook failed"}


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    raise RuntimeError("the hook failed")
