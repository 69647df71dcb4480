"""What one run knows of each (cell, variant), condensed to what a comparison needs: a small part of its samples."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import msgspec

from sparsebench.errors import UsageError
from sparsebench.runs.blocks import log_ratios, times_of
from sparsebench.runs.halves import in_halves
from sparsebench.runs.records import TIMED, CellInfo, RunInfo, Timing
from sparsebench.runs.stats import median
from sparsebench.runs.store import SAMPLES, Timings, read_timings
from sparsebench.runs.summary import status_of

LARGE = 16 << 20  # bytes of samples that take longer to read than a process takes to start
MOST_NAMED = 5  # of what is not planned; a folder that holds two runs would name every row


class Side(msgspec.Struct, frozen=True, gc=False):
    """One (cell, variant) of one run."""

    status: str
    reason: str
    ratios: Sequence[float] = ()  # log(time / baseline's time), a value for every block
    ns: float | None = None


class Digest(msgspec.Struct, frozen=True):
    """A run without its samples: the head, what was wrong with the file, and cell key -> variant -> side."""

    info: RunInfo
    path: str
    problems: tuple[str, ...]
    sides: Mapping[str, Mapping[str, Side]]


def digest(run: Timings) -> Digest:
    """All that is planned, and by name what is not; the run may be let go of, which is most of the memory."""
    planned = run.info.planned()
    sides: dict[str, dict[str, Side]] = {}
    for key, info in planned.items():
        baseline = run.rows.get((key, info.baseline), {})
        anchored = status_of(baseline)[0] == "ok"
        for variant in info.variants:
            blocks = run.rows.get((key, variant), {})
            sides.setdefault(key, {})[variant] = _side(blocks, baseline if anchored else {})
    problems = (*run.problems, *_unfinished(run, planned), *_unplanned(planned, run.rows.keys()))
    return Digest(run.info, str(run.path), problems, sides)


def _unfinished(run: Timings, planned: Mapping[str, CellInfo]) -> list[str]:
    """That blocks are missing which other rows show to have been planned; rows that failed were not asked again."""
    rows = lacking = 0
    for key, info in planned.items():
        for variant in info.variants:
            found = run.rows.get((key, variant), {})
            rows += 1
            lacking += len(found) < info.blocks and all(s.status in TIMED for s in found.values())
    if not lacking:
        return []
    told = f"{lacking} of {rows} rows lack blocks that were planned" if run.samples else "nothing was measured"
    return [f"not finished: {told}; `sparsebench run --resume {run.path}` completes it"]


def _unplanned(planned: Mapping[str, CellInfo], found: Collection[tuple[str, str]]) -> list[str]:
    """What has samples, as (cell key, variant), and no place in the plan: nothing is compared of it, so it is said."""
    cells = sorted({key for key, _ in found} - planned.keys())
    names = {key: {each.baseline, *each.variants} for key, each in planned.items()}
    rows = sorted((key, variant) for key, variant in found if key in names and variant not in names[key])
    return [
        *_few([f"{key}: samples of a cell that run.json does not plan, left out" for key in cells], "cell"),
        *_few([f"{key}: samples of {name}, which run.json does not plan there, left out" for key, name in rows], "row"),
    ]


def _few(lines: list[str], what: str) -> list[str]:
    """The first lines, and how many more there are."""
    more = len(lines) - MOST_NAMED
    told = f"samples of {more} more {what}{'s' if more > 1 else ''} that run.json does not plan, left out"
    return [*lines[:MOST_NAMED], *([told] if more > 0 else [])]


def digests_of(folders: Sequence[Path]) -> list[Digest]:
    """The digests of run folders; where several are large two are read at once."""
    large = sum((folder / SAMPLES).stat().st_size > LARGE for folder in folders if (folder / SAMPLES).exists())
    return in_halves(_digests, folders, Digest) if large > 1 else _digests(folders)


def _digests(folders: Sequence[Path]) -> list[Digest]:
    return [digest(read_timings(folder)) for folder in folders]


def renamed(run: Digest, names: Mapping[str, str]) -> Digest:
    """The run as if the variants had had their new names then; all change at once, so that two may swap theirs.

    Raises `UsageError` where two would come to have one name: one of them would be gone without a word.
    """
    had = {name for cell in run.info.cells for name in (cell.baseline, *cell.variants)}
    givers: dict[str, str] = {}
    for old, new in names.items():
        other = givers.setdefault(new, old)
        if other != old:
            raise UsageError(f"--rename {old}={new}: {other} is renamed to {new} as well; give each a name of its own")
        if new in had and new not in names:
            raise UsageError(
                f"--rename {old}={new}: {run.path} has a variant {new} already; leave it out, or rename {new} too"
            )
    cells = [
        msgspec.structs.replace(
            cell, variants=_new(cell.variants, names), baseline=names.get(cell.baseline, cell.baseline)
        )
        for cell in run.info.cells
    ]
    sides = {key: dict(zip(_new(found, names), found.values(), strict=True)) for key, found in run.sides.items()}
    precision = {names.get(variant, variant): kind for variant, kind in run.info.precision.items()}
    info = msgspec.structs.replace(run.info, cells=cells, precision=precision)
    return msgspec.structs.replace(run, info=info, sides=sides)


def _new(variants: Collection[str], names: Mapping[str, str]) -> list[str]:
    return [names.get(variant, variant) for variant in variants]


def _side(blocks: Mapping[int, Timing], baseline: Mapping[int, Timing]) -> Side:
    """One (cell, variant) of one run; `baseline` is empty where it has no time to divide by."""
    status, reason = status_of(blocks)
    if status != "ok":
        return Side(status, reason)
    values = log_ratios(baseline, blocks).values()
    return Side(status, reason, [-value for value in values], median(times_of(blocks).values()))
