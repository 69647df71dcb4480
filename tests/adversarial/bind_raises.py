"""Raises in bind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sparsebench.plugin import BackendSpec, Problem, hookimpl
from sparsebench.testing.honest import HonestBackend

if TYPE_CHECKING:
    from sparsebench.weight import SparseWeight

EXPECTED = {"status": "error", "reason": r"RuntimeError: I do not bind"}


class Backend(HonestBackend):
    def bind(self, problem: Problem, weight: SparseWeight) -> Any:
        raise RuntimeError("I do not bind")


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(name="bind-raises", summary="raises in bind", load=f"{__name__}:Backend", ops=("linear", "conv2d"))
    ]
