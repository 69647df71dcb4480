"""What every foreign format is made of: the rows of a run that have a time, with their samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sparsebench.errors import RunError
from sparsebench.runs.blocks import block_ns, kept, log_ratios
from sparsebench.runs.records import CellInfo, Sample, cell_key
from sparsebench.runs.stats import median
from sparsebench.runs.store import Run
from sparsebench.runs.summary import status_of


@dataclass(frozen=True)
class TimedRow:
    """One (cell, variant) that is `ok`; its samples in the order of the blocks."""

    info: CellInfo
    variant: str
    samples: tuple[Sample, ...]
    log_ratios: tuple[float, ...]  # log(baseline's time / this time) of each block that both have

    @property
    def name(self) -> str:
        """Unique within the run."""
        return f"{cell_key(self.info.case, self.info.cell)} {self.variant}"

    def blocks_ns(self) -> list[float]:
        """The time of each block."""
        return [ns for ns in map(block_ns, self.samples) if ns is not None]

    def rounds_ns(self) -> list[float]:
        """Every round that was kept, of all blocks."""
        return [t for sample in self.samples for t in kept(sample)]

    def ratio_text(self) -> str:
        """What these formats have no place for, in words."""
        return f"median log ratio to {self.info.baseline}: {median(self.log_ratios):.4f}" if self.log_ratios else ""


def timed_rows(run: Run) -> list[TimedRow]:
    """The rows with status `ok` in the order of the plan; RunError if there are none."""
    rows = list(_timed(run))
    if not rows:
        raise RunError(f"{run.path}: no row has a time, so there is nothing to export; run it again")
    return rows


def _timed(run: Run) -> Iterator[TimedRow]:
    for info in run.info.cells:
        key = cell_key(info.case, info.cell)
        baseline = run.rows.get((key, info.baseline), {})
        anchor = baseline if status_of(baseline)[0] == "ok" else {}
        for variant in info.variants:
            blocks = run.rows.get((key, variant), {})
            if status_of(blocks)[0] == "ok":
                ratios = log_ratios(anchor, blocks).values()
                yield TimedRow(info, variant, tuple(blocks[b] for b in sorted(blocks)), tuple(ratios))
