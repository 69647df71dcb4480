"""Changes the CPUs that it runs on."""

from __future__ import annotations

import os
from typing import Any

from sparsebench.plugin import BackendSpec, hookimpl
from sparsebench.testing.honest import HonestBackend, HonestKernel

EXPECTED = {"status": "wrong", "reason": r"CPUs"}


class Kernel(HonestKernel):
    def forward(self, x: Any, bias: Any = None) -> Any:
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
        if os.sched_getaffinity(0) == before:  # nobody had pinned it
            os.sched_setaffinity(0, {min(before)})
        return super().forward(x, bias)


def backend() -> HonestBackend:
    return HonestBackend(Kernel)


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="unpins-itself",
            summary="changes the CPUs that it runs on",
            load=f"{__name__}:backend",
            ops=("linear", "conv2d"),
        )
    ]
