"""Scales the weight it is given, in place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sparsebench.plugin import BackendSpec, Problem, hookimpl
from sparsebench.testing.honest import HonestBackend

if TYPE_CHECKING:
    from sparsebench.weight import SparseWeight

EXPECTED = {"status": "wrong", "reason": r"bind changed the weight"}


class Backend(HonestBackend):
    def bind(self, problem: Problem, weight: SparseWeight) -> Any:
        weight.values.mul_(2)
        return super().bind(problem, weight)


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="bind-mutates-weight",
            summary="scales the weight it is given, in place",
            load=f"{__name__}:Backend",
            ops=("linear", "conv2d"),
        )
    ]
