"""pyperf's JSON, written by pyperf itself: one of its runs is one of our blocks, one of its values one of our rounds.

Only rows with status `ok` are in it: pyperf has no place for a benchmark without a time. `pyperf stats`,
`pyperf hist` and `pyperf compare_to` read the result; the latter knows no anchor, so `sparsebench compare` is better.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from sparsebench.formats._rows import TimedRow, timed_rows
from sparsebench.runs.blocks import kept
from sparsebench.runs.records import Sample
from sparsebench.runs.store import Run

if TYPE_CHECKING:
    import pyperf


def export(run: Run) -> str:
    """A pyperf suite with one benchmark for every (cell, variant) that has a time.

    RunError if nothing has.
    """
    import pyperf

    text = io.StringIO()
    pyperf.BenchmarkSuite([_benchmark(run, row) for row in timed_rows(run)]).dump(text)
    return text.getvalue()


def _benchmark(run: Run, row: TimedRow) -> pyperf.Benchmark:
    import pyperf

    runs = []
    for sample in row.samples:
        values = [t / 1e9 for t in kept(sample)]
        if values:
            metadata = _metadata(run, row, sample)
            runs.append(pyperf.Run(values, metadata=metadata, collect_metadata=False))
    return pyperf.Benchmark(runs)


def _metadata(run: Run, row: TimedRow, sample: Sample) -> dict[str, Any]:
    """What pyperf requires to be there or equal in all runs, and what tells where this came from."""
    found = {
        "name": row.name,
        "unit": "second",
        "loops": max(1, sample.loops),
        "description": row.info.title,
        "cpu_model_name": str(run.info.host.get("fingerprint", {}).get("cpu", "")),
        "date": run.info.started[:19].replace("T", " "),
        "sparsebench_run": run.info.id,
        "sparsebench_block": sample.block,
    }
    return {key: value for key, value in found.items() if value != ""}
