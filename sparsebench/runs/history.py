"""One case over all runs of one machine: anchored ratios over time, and where they stepped."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from sparsebench.errors import RunError, UsageError, nearest
from sparsebench.runs.blocks import log_ratios
from sparsebench.runs.differences import fingerprint_differences
from sparsebench.runs.reading import INFO, read_info
from sparsebench.runs.records import CellInfo, RunInfo, Timing, cell_key
from sparsebench.runs.stats import median
from sparsebench.runs.steps import Step, steps
from sparsebench.runs.store import Timings, read_timings
from sparsebench.runs.summary import status_of

MOST_NAMED = 5  # of series that are left out


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One variant in one cell of one run. `ratio` is baseline's time / this time, median over blocks."""

    run: int  # place in `History.runs`
    status: str
    ratio: float | None = None
    low: float | None = None  # range over blocks
    high: float | None = None
    blocks: int = 0


Points = dict[tuple[str, str], list[Point]]  # (cell key, variant) -> oldest first


class Shift(msgspec.Struct, frozen=True, kw_only=True):
    """A step: from run `since` on the variant takes `change` times as long (1.12: 12 % more)."""

    since: int  # place in `History.runs`
    change: float
    p: float  # share of random orders of these runs that look as much like a step


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """A variant in a cell over the runs that have it."""

    cell: dict[str, Any]
    variant: str
    margin: float  # a smaller step is none
    points: tuple[Point, ...]
    shifts: tuple[Shift, ...] = ()


class Visit(msgspec.Struct, frozen=True, kw_only=True):
    """A run as a history names it."""

    id: str
    path: str
    started: str
    commit: str
    dirty: bool


class History(msgspec.Struct, frozen=True, kw_only=True):
    """Oldest run first. `notes` count and name what is not in it."""

    case: str
    title: str
    baseline: str
    runs: tuple[Visit, ...]
    series: tuple[Series, ...]
    notes: tuple[str, ...] = ()

    def shifted(self) -> list[tuple[Series, Shift]]:
        """Every step with its series."""
        return [(series, shift) for series in self.series for shift in series.shifts]


def history_of(folder: str | Path, case: str, variant: str | None = None) -> History:
    """The runs below `folder` of the newest one's machine and version of the case.

    RunError if there is no run; UsageError if none has the case or the variant.
    """
    heads, notes = _heads(Path(folder))
    having = [(path, info) for path, info in heads if any(cell.case == case for cell in info.cells)]
    if not having:
        known = {cell.case for _, info in heads for cell in info.cells}
        raise UsageError(f"--case {case}: none of the {len(heads)} runs below {folder} has it{nearest(case, known)}")
    if len(heads) > len(having):
        notes.append(f"{len(heads) - len(having)} of {len(heads)} runs do not have the case")
    while _timings(having[-1][0], notes) is None:  # what all others are measured by must be one that can be read
        having.pop()
        if not having:
            raise RunError(f"{folder}: no run with {case} can be read: {notes[-1]}")
    newest = having[-1][1]
    alike, strange = _alike(having, newest)
    versions = {cell_key(c.case, c.cell): c for c in newest.cells if c.case == case}
    variants = list(dict.fromkeys(v for cell in versions.values() for v in cell.variants if v != cell.baseline))
    if variant is not None and variant not in variants:
        raise UsageError(f"--variant {variant}: not in {case} of the newest run{nearest(variant, variants)}")
    wanted = [variant] if variant is not None else variants
    points: Points = {(key, v): [] for key, cell in versions.items() for v in wanted if v in cell.variants}
    other: Counter[str] = Counter()
    visits: list[Visit] = []
    if variant is None:
        notes += _not_in_newest(case, points, alike)
    for path, info in alike:
        found = _add(points, len(visits), path, versions, notes)
        if found is not None:
            other += found
            visits.append(_visit(path, info))
    notes += strange
    notes += [f"{count} cells of run {run} are of another version of the case" for run, count in other.items()]
    made = [_series(versions[key], name, seen) for (key, name), seen in points.items() if seen]
    return History(
        case=case,
        title=next(iter(versions.values())).title if len(versions) == 1 else "",
        baseline=" or ".join(dict.fromkeys(cell.baseline for cell in versions.values())),
        runs=tuple(visits),
        series=tuple(made),
        notes=tuple(notes),
    )


def _heads(folder: Path) -> tuple[list[tuple[Path, RunInfo]], list[str]]:
    """Every readable run below a folder, oldest first; sentences on the others."""
    places, notes = _places(folder)
    found = []
    for place in places:
        try:
            found.append((place, read_info(place)))
        except RunError as error:
            notes.append(f"left out: {error}")
    if not found:
        raise RunError(f"{folder}: no run below it can be read{': ' + notes[0] if notes else ''}")
    found, more = _once(found)
    notes += more
    duels = [info.id for _, info in found if "ab" in info.options]
    if duels:  # their baseline is one of the two sides, and their blocks hold nothing else
        notes.append(f"runs of `ab`, left out: {', '.join(duels)}")
    found = [(path, info) for path, info in found if "ab" not in info.options]
    undated = [info.id for _, info in found if _moment(info) is None]
    if undated:
        notes.append(f"{len(undated)} runs do not say when they began and are left out: {', '.join(undated)}")
    dated = [(path, info) for path, info in found if _moment(info) is not None]
    if not dated:
        raise RunError(f"{folder}: no run below it can be used: {'; '.join(notes)}; make one with `sparsebench run`")
    return sorted(dated, key=lambda each: (_moment(each[1]) or 0.0, each[1].id)), notes


def _once(runs: Sequence[tuple[Path, RunInfo]]) -> tuple[list[tuple[Path, RunInfo]], list[str]]:
    """No run twice: neither beside a copy of itself, nor as a shard of another; sentences on those left out."""
    whole = {shard for _, info in runs for shard in info.options.get("shards", {}).get("merged", ())}
    shards = [info.id for _, info in runs if info.id in whole]
    first: dict[str, tuple[Path, RunInfo]] = {}
    for path, info in runs:
        if info.id not in whole:
            first.setdefault(info.id, (path, info))
    copies = len(runs) - len(shards) - len(first)
    told = [f"shards of a run that is there merged, left out: {', '.join(shards)}"] if shards else []
    return list(first.values()), [*told, *([f"{copies} copies of runs, left out"] if copies else [])]


def _places(folder: Path) -> tuple[list[Path], list[str]]:
    """Every folder below one that holds the head of a run; sentences on those that may not be looked into."""
    missing = f"{folder}: no such folder; give the one that holds the runs, as results/"
    notes: list[str] = []

    def told(error: OSError) -> None:
        if Path(error.filename) == folder and isinstance(error, FileNotFoundError | NotADirectoryError):
            raise RunError(missing) from None
        notes.append(f"left out: {error.filename}: cannot be read ({error.strerror}); check its permissions")

    walk = os.walk(folder, onerror=told)  # Path.rglob says nothing of a folder that it may not enter
    return sorted(Path(place) for place, folders, files in walk if INFO in (*folders, *files)), notes


def _timings(path: Path, notes: list[str]) -> Timings | None:
    """The times of a run; None, and a note, where they cannot be read."""
    try:
        return read_timings(path)
    except RunError as error:
        notes.append(f"left out: {error}")
        return None


def _moment(info: RunInfo) -> float | None:
    """Seconds since 1970 at which a run began."""
    try:
        return datetime.fromisoformat(info.started).timestamp()
    except (ValueError, OverflowError):
        return None


def _alike(runs: Sequence[tuple[Path, RunInfo]], newest: RunInfo) -> tuple[list[tuple[Path, RunInfo]], list[str]]:
    """The runs of the newest one's machine; sentences that count the others and name the fields."""
    alike: list[tuple[Path, RunInfo]] = []
    fields: dict[str, list[str]] = {}
    for path, info in runs:
        differences = fingerprint_differences(info, newest)
        if differences:
            fields.setdefault("; ".join(differences), []).append(info.id)
        else:
            alike.append((path, info))
    other = "runs are of another machine or other libraries, left out"
    return alike, [
        f"{len(ids)} of {len(runs)} {other}: {', '.join(ids)} ({difference})" for difference, ids in fields.items()
    ]


def _not_in_newest(case: str, points: Points, runs: Sequence[tuple[Path, RunInfo]]) -> list[str]:
    """That older runs have series of the case which the newest has not, so that they are not shown."""
    older = {
        (cell_key(cell.case, cell.cell), name)
        for _, info in runs for cell in info.cells if cell.case == case for name in cell.variants
        if name != cell.baseline
    }  # fmt: skip
    left = sorted(older - points.keys())
    if not left:
        return []
    named = ", ".join(f"{name} in {key}" for key, name in left[:MOST_NAMED])
    more = f" and {len(left) - MOST_NAMED} more" if len(left) > MOST_NAMED else ""
    return [f"{len(left)} series of older runs that the newest one did not measure, left out: {named}{more}"]


def _add(
    points: Points, number: int, path: Path, versions: dict[str, CellInfo], notes: list[str]
) -> Counter[str] | None:
    """Add one run to the points; how many of its cells are of another version, or None if it cannot be read."""
    run = _timings(path, notes)
    if run is None:
        return None
    notes += [f"{path.name}: {problem}" for problem in run.problems]
    other: Counter[str] = Counter()
    for cell in run.info.cells:
        key = cell_key(cell.case, cell.cell)
        if key not in versions:
            continue
        if cell.version != versions[key].version:
            other[run.info.id] += 1
            continue
        baseline = run.rows.get((key, cell.baseline), {})
        for name in cell.variants:
            if (key, name) in points:
                points[key, name].append(_point(number, baseline, run.rows.get((key, name), {})))
    return other


def _point(number: int, baseline: Mapping[int, Timing], blocks: Mapping[int, Timing]) -> Point:
    status = status_of(blocks)[0]
    values = log_ratios(baseline, blocks).values() if status == status_of(baseline)[0] == "ok" else ()
    if not values:
        return Point(run=number, status=status if status != "ok" else "no baseline")
    ratios = [math.exp(value) for value in values]
    middle = math.exp(median(values))
    return Point(run=number, status=status, ratio=middle, low=min(ratios), high=max(ratios), blocks=len(ratios))


def _series(info: CellInfo, variant: str, points: Sequence[Point]) -> Series:
    timed = [point for point in points if point.ratio is not None]
    values = [-math.log(point.ratio or 1.0) for point in timed]  # of times: up is slower
    shifts = tuple(_shift(timed, step) for step in steps(values, math.log1p(info.margin)))
    return Series(cell=info.cell, variant=variant, margin=info.margin, points=tuple(points), shifts=shifts)


def _shift(points: Sequence[Point], step: Step) -> Shift:
    return Shift(since=points[step.at].run, change=math.exp(step.change), p=step.p)


def _visit(path: Path, info: RunInfo) -> Visit:
    return Visit(
        id=info.id,
        path=str(path),
        started=info.started,
        commit=str(info.git.get("commit", "")),
        dirty=bool(info.git.get("dirty")),
    )


def by_cell(history: History) -> Iterator[tuple[dict[str, Any], list[Series]]]:
    """The series of each cell together."""
    cells: dict[str, list[Series]] = {}
    for series in history.series:
        cells.setdefault(cell_key(history.case, series.cell), []).append(series)
    for group in cells.values():
        yield group[0].cell, group
