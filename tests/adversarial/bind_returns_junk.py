"""Binds to None."""

from __future__ import annotations

from typing import Any

from sparsebench.plugin import BackendSpec, Problem, SparseWeight, hookimpl
from sparsebench.testing.honest import HonestBackend

EXPECTED = {"status": "error", "reason": r""}


class Backend(HonestBackend):
    def bind(self, problem: Problem, weight: SparseWeight) -> Any:
        return None


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="bind-returns-junk", summary="binds to None", load=f"{__name__}:Backend", ops=("linear", "conv2d")
        )
    ]
