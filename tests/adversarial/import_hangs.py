"""Never ends its import."""

from __future__ import annotations

import time

from sparsebench.plugin import BackendSpec, hookimpl

EXPECTED = {"status": "quarantined", "reason": r"did not end"}

time.sleep(3600)


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="import-hangs", summary="never ends its import", load=f"{__name__}:Backend", ops=("linear", "conv2d")
        )
    ]
