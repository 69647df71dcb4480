"""From what a person types to the folder of a run: a path, the beginning of a run's name or id, or `latest`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sparsebench.errors import UsageError, nearest

ROOTS = (Path("results"),)  # our own runs, <suite>-<time>-<id>, and the reference runs of a checkout


def find_run(text: str, roots: Sequence[Path] = ROOTS) -> Path:
    """The run that `text` means; raises `UsageError` if there is none, or more than one."""
    given = Path(text)
    if given.exists():
        return given
    runs = [head.parent for root in roots for head in sorted(root.glob("*/run.json"))]
    here = " and ".join(f"{root}/" for root in roots)
    if text == "latest":
        if not runs:
            raise UsageError(f"latest: there is no run in {here}; make one: sparsebench run suite-smoke")
        return max(runs, key=lambda run: (run / "run.json").stat().st_mtime_ns)
    found = [run for run in runs if run.name == text] or [run for run in runs if _begins(run.name, text)]
    if len(found) > 1:
        raise UsageError(f"{text!r} is the beginning of {_names(found)}; write more of it")
    if not found:
        known = [*(run.name for run in runs), *(["latest"] if runs else [])]
        hint = nearest(text, known) or f"; {here} hold none: sparsebench run suite-smoke makes one"
        raise UsageError(f"no run is named {text!r}, nor is it a folder{hint}")
    return found[0]


def _begins(name: str, text: str) -> bool:
    """Whether `text` begins the name or the id, which is the name's last part."""
    return bool(text) and (name.startswith(text) or name.rpartition("-")[2].startswith(text))


def _names(runs: list[Path]) -> str:
    names = [run.name for run in runs]
    return " and ".join(names) if len(names) < 4 else f"{', '.join(names[:3])} and {len(names) - 3} more"
