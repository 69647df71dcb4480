"""Never ends making the backend."""

from __future__ import annotations

import time

from sparsebench.plugin import BackendSpec, hookimpl
from sparsebench.testing.honest import HonestBackend

EXPECTED = {"status": "timeout", "reason": r""}


class Backend(HonestBackend):
    def __init__(self) -> None:
        time.sleep(3600)


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="load-hangs",
            summary="never ends making the backend",
            load=f"{__name__}:Backend",
            ops=("linear", "conv2d"),
        )
    ]
