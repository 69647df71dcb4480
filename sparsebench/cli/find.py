"""From what a person types to the folder of a run: a path, the beginning of a run's name or id, or `latest`."""

from __future__ import annotations

from pathlib import Path

from sparsebench.errors import UsageError, nearest

RESULTS = Path("results")  # our own runs, <suite>-<time>-<id>
REFERENCE = "reference"  # the folder in it with the reference runs of a checkout


def find_run(text: str, results: Path = RESULTS) -> Path:
    """The run that `text` means; raises `UsageError` if there is none, or more than one.

    Our own runs come before reference runs, which are never the `latest`.
    """
    given = Path(text)
    if given.exists():
        return given
    runs, references = _runs_in(results), _runs_in(results / REFERENCE)
    if text == "latest":
        if not runs:
            raise UsageError(f"latest: there is no run in {results}/; make one: sparsebench run suite-smoke")
        return max(runs, key=lambda run: (run / "run.json").stat().st_mtime_ns)
    exact = [run for run in (*runs, *references) if run.name == text]
    found = exact[:1] or next(filter(None, (_beginning(text, group) for group in (runs, references))), [])
    if len(found) > 1:
        raise UsageError(f"{text!r} is the beginning of {_names(found)}; write more of it")
    if not found:
        known = [*(run.name for run in (*runs, *references)), *(["latest"] if runs else [])]
        hint = nearest(text, known, most=4) or f"; {results}/ holds none: sparsebench run suite-smoke makes one"
        raise UsageError(f"no run is named {text!r}, nor is it a folder{hint}")
    return found[0]


def _runs_in(folder: Path) -> list[Path]:
    return [head.parent for head in sorted(folder.glob("*/run.json"))]


def _beginning(text: str, runs: list[Path]) -> list[Path]:
    """Those whose name `text` begins, or whose id, which is the name's last part."""
    return [run for run in runs if text and (run.name.startswith(text) or run.name.rpartition("-")[2].startswith(text))]


def _names(runs: list[Path]) -> str:
    names = [run.name for run in runs]
    return " and ".join(names) if len(names) < 4 else f"{', '.join(names[:3])} and {len(names) - 3} more"
