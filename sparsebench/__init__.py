"""Finds the sparse kernels and pruning methods that are here, proves each right, times them, says who wins.

The whole public surface, loaded lazily so that `import sparsebench` costs nothing: `sparsify`, `densify`,
`SparseLinear`, `SparseConv2d`, `run`, `load_run`, `compare`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparsebench.harness.session import run
    from sparsebench.nn import SparseConv2d, SparseLinear, densify, sparsify
    from sparsebench.runs.compare import compare_runs as compare
    from sparsebench.runs.store import read_run as load_run

    __version__: str

_LAZY = {  # name -> module:attribute
    "SparseConv2d": "sparsebench.nn:SparseConv2d",
    "SparseLinear": "sparsebench.nn:SparseLinear",
    "compare": "sparsebench.runs.compare:compare_runs",
    "densify": "sparsebench.nn:densify",
    "load_run": "sparsebench.runs.store:read_run",
    "run": "sparsebench.harness.session:run",
    "sparsify": "sparsebench.nn:sparsify",
}
__all__ = ["SparseConv2d", "SparseLinear", "__version__", "compare", "densify", "load_run", "run", "sparsify"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("sparsebench")
    if name in _LAZY:
        module, _, attribute = _LAZY[name].partition(":")
        return getattr(import_module(module), attribute)
    raise AttributeError(f"module 'sparsebench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
