"""Raises when the backend is made."""

from __future__ import annotations

from sparsebench.plugin import BackendSpec, hookimpl
from sparsebench.testing.honest import HonestBackend

EXPECTED = {"status": "error", "reason": r"OSError: the library is not there"}


class Backend(HonestBackend):
    def __init__(self) -> None:
        raise OSError("the library is not there")


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="load-raises",
            summary="raises when the backend is made",
            load=f"{__name__}:Backend",
            ops=("linear", "conv2d"),
        )
    ]
