"""github-action-benchmark's `customSmallerIsBetter`: an array of {name, unit, value, range, extra}.

A baseline's value is its time; any other's its time over the baseline's, in the same blocks: absolute times wander by
tens of percent between two runs of one machine, and that action compares with nothing else. `range` is half the range
over blocks. Only rows with status `ok` are in it, and with a baseline that is: under one name there is one unit.
"""

from __future__ import annotations

import json
import math
from typing import Any

from sparsebench.errors import RunError
from sparsebench.formats._rows import TimedRow, timed_rows
from sparsebench.runs.stats import median
from sparsebench.runs.store import Run


def export(run: Run) -> str:
    """The array; RunError if no row has a time."""
    rows = [row for row in timed_rows(run) if row.log_ratios or row.variant == row.info.baseline]
    if not rows:
        raise RunError(f"{run.path}: no row has a time and a baseline that has one; run it again")
    return json.dumps([_entry(row) for row in rows], indent=2) + "\n"


def _entry(row: TimedRow) -> dict[str, Any]:
    anchored = row.variant != row.info.baseline
    values = [math.exp(-value) for value in row.log_ratios] if anchored else [ns / 1e6 for ns in row.blocks_ns()]
    extra = [row.info.title, f"{len(values)} blocks"]
    if anchored:
        extra.append(f"time {median(row.blocks_ns()) / 1e6:.6g} ms")
    middle = math.exp(-median(row.log_ratios)) if anchored else median(values)
    return {
        "name": row.name,
        "unit": f"x {row.info.baseline}" if anchored else "ms",
        "value": middle,
        "range": f"± {(max(values) - min(values)) / 2:.3g}",
        "extra": "\n".join(extra),
    }
