"""What one run knows of each (cell, variant), condensed to what a comparison needs: a small part of its samples."""

from __future__ import annotations

import gc
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import msgspec

from sparsebench.runs.blocks import by_row, log_ratios, times_of
from sparsebench.runs.records import RunInfo, Timing, cell_key
from sparsebench.runs.stats import median
from sparsebench.runs.store import SAMPLES, Timings, read_timings
from sparsebench.runs.summary import status_of

LARGE = 16 << 20  # bytes of samples that take longer to read than a process takes to start


class Side(msgspec.Struct, frozen=True, gc=False):
    """One (cell, variant) of one run."""

    status: str
    reason: str
    ratios: Sequence[float] = ()  # log(time / baseline's time), a value for every block
    ns: float | None = None


@dataclass(frozen=True)
class Digest:
    """A run without its samples: the head, what was wrong with the file, and cell key -> variant -> side."""

    info: RunInfo
    path: str
    problems: tuple[str, ...]
    sides: Mapping[str, Mapping[str, Side]]


def digest(run: Timings) -> Digest:
    """All that is planned and has any sample; the run may be let go of, which is most of the memory."""
    index = by_row(run.samples)
    sides: dict[str, dict[str, Side]] = {}
    for info in run.info.cells:
        key = cell_key(info.case, info.cell)
        baseline = index.get((key, info.baseline), {})
        anchored = status_of(baseline)[0] == "ok"
        for variant in info.variants:
            blocks = index.get((key, variant), {})
            sides.setdefault(key, {})[variant] = _side(blocks, baseline if anchored else {})
    return Digest(run.info, str(run.path), run.problems, sides)


def digests_of(folders: Sequence[Path]) -> list[Digest]:
    """The digests of run folders; of several large ones each in a process of its own, where there are cores."""
    large = sum((folder / SAMPLES).stat().st_size > LARGE for folder in folders if (folder / SAMPLES).exists())
    if large < 2 or len(os.sched_getaffinity(0)) < 2:
        return [digest(read_timings(folder)) for folder in folders]
    with ProcessPoolExecutor(len(folders), get_context("fork")) as pool:
        return list(pool.map(_digest_alone, folders))


def _digest_alone(folder: Path) -> Digest:
    gc.disable()  # the process ends with its answer
    return digest(read_timings(folder))


def renamed(run: Digest, names: Mapping[str, str]) -> Digest:
    """The run as if the variants had had their new names then; what has the new name already keeps it."""
    cells = [
        msgspec.structs.replace(
            cell, variants=_new(cell.variants, names), baseline=_new([cell.baseline, *cell.variants], names)[0]
        )
        for cell in run.info.cells
    ]
    sides = {key: dict(zip(_new([*found], names), found.values(), strict=True)) for key, found in run.sides.items()}
    return replace(run, info=msgspec.structs.replace(run.info, cells=cells), sides=sides)


def _new(variants: Sequence[str], names: Mapping[str, str]) -> list[str]:
    return [v if names.get(v, v) in variants else names[v] for v in variants]


def _side(blocks: Mapping[int, Timing], baseline: Mapping[int, Timing]) -> Side:
    """One (cell, variant) of one run; `baseline` is empty where it has no time to divide by."""
    status, reason = status_of(blocks)
    if status != "ok":
        return Side(status, reason)
    values = log_ratios(baseline, blocks).values()
    return Side(status, reason, [-value for value in values], median(times_of(blocks).values()))
