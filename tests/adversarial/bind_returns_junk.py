"""Binds to None."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sparsebench.plugin import BackendSpec, Problem, hookimpl
from sparsebench.testing.honest import HonestBackend

if TYPE_CHECKING:
    from sparsebench.weight import SparseWeight

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
