"""One file per output format, each a pure `render(summary) -> str` that knows records alone.

A module of this package whose name has no underscore is a format of that name. One that can also show a
comparison of two runs has `render_comparison(comparison) -> str` beside it.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from sparsebench.errors import UsageError, nearest

if TYPE_CHECKING:
    from sparsebench.runs.compare import Comparison
    from sparsebench.runs.duel import Duel
    from sparsebench.runs.summary import RunSummary

# Named here so that asking for help imports no format.
COMPARISON_FORMATS = ("github", "html", "json", "latex", "markdown", "table")
DUEL_FORMATS = ("github", "json", "markdown", "table")


def formats() -> list[str]:
    """The names `render` knows."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def render(summary: RunSummary, format: str = "table") -> str:
    """A run as text in one of `formats()`; ends in an end of line."""
    text: str = _module(format, formats()).render(summary)
    return text


def render_comparison(comparison: Comparison, format: str = "table") -> str:
    """A comparison as text in one of COMPARISON_FORMATS; ends in an end of line."""
    text: str = _module(format, COMPARISON_FORMATS).render_comparison(comparison)
    return text


def render_duels(duels: Sequence[Duel], format: str = "table") -> str:
    """What `ab` found as text in one of DUEL_FORMATS; ends in an end of line."""
    from sparsebench.report import _duels

    module = _module(format, DUEL_FORMATS)
    show = module.render_duels if format == "github" else getattr(_duels, format)
    text: str = show(duels)
    return text


def _module(name: str, known: list[str] | tuple[str, ...]) -> ModuleType:
    if name not in known:
        raise UsageError(f"format {name!r} is not known{nearest(name, known)}")
    return import_module(f"{__name__}.{name}")
