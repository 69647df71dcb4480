"""Sets the number of threads once, before anything is verified."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sparsebench.plugin import BackendSpec, Problem, hookimpl
from sparsebench.testing.honest import HonestBackend

if TYPE_CHECKING:
    from sparsebench.weight import SparseWeight

EXPECTED = {"status": "wrong", "reason": r"number of threads"}


class Backend(HonestBackend):
    def bind(self, problem: Problem, weight: SparseWeight) -> Any:
        import torch

        torch.set_num_threads(torch.get_num_threads() + 1)
        return super().bind(problem, weight)


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="changes-threads-in-bind",
            summary="sets the number of threads once, before anything is verified",
            load=f"{__name__}:Backend",
            ops=("linear", "conv2d"),
        )
    ]
