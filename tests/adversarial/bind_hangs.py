"""Never ends bind."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from sparsebench.plugin import BackendSpec, Problem, hookimpl
from sparsebench.testing.honest import HonestBackend

if TYPE_CHECKING:
    from sparsebench.weight import SparseWeight

EXPECTED = {"status": "timeout", "reason": r""}


class Backend(HonestBackend):
    def bind(self, problem: Problem, weight: SparseWeight) -> Any:
        time.sleep(3600)


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(name="bind-hangs", summary="never ends bind", load=f"{__name__}:Backend", ops=("linear", "conv2d"))
    ]
