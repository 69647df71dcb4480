"""One file per foreign format, each an `export(run) -> str` of a whole run as other tools read it.

A format is named as its file, with dashes: `pytest-benchmark`.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import TYPE_CHECKING

from sparsebench.errors import UsageError, nearest

if TYPE_CHECKING:
    from sparsebench.runs.store import Run


def formats() -> list[str]:
    """The names `export` knows."""
    return sorted(m.name.replace("_", "-") for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def export(run: Run, format: str) -> str:
    """A run as text in one of `formats()`."""
    if format not in formats():
        raise UsageError(f"format {format!r} is not known{nearest(format, formats())}")
    text: str = import_module(f"{__name__}.{format.replace('-', '_')}").export(run)
    return text
