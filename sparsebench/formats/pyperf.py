"""pyperf's JSON, written by pyperf itself: one of its runs is one of our blocks, one of its values one of our rounds.

Only rows with status `ok` are in it: pyperf has no place for a benchmark without a time. `pyperf stats`,
`pyperf hist` and `pyperf compare_to` read the result; the latter knows no anchor, so `sparsebench compare` is better.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from sparsebench.errors import RunError
from sparsebench.runs.blocks import by_row, kept
from sparsebench.runs.records import CellInfo, Sample, cell_key
from sparsebench.runs.store import Run
from sparsebench.runs.summary import status_of

if TYPE_CHECKING:
    import pyperf


def export(run: Run) -> str:
    """A pyperf suite with one benchmark for every (cell, variant) that has a time.

    RunError if nothing has.
    """
    import pyperf

    index = by_row(run.samples)
    benchmarks = []
    for info in run.info.cells:
        for variant in info.variants:
            blocks = index.get((cell_key(info.case, info.cell), variant), {})
            if status_of(blocks)[0] == "ok":
                benchmarks.append(_benchmark(run, info, [blocks[b] for b in sorted(blocks)]))
    if not benchmarks:
        raise RunError(f"{run.path}: no row has a time, so there is nothing to export; run it again")
    text = io.StringIO()
    pyperf.BenchmarkSuite(benchmarks).dump(text)
    return text.getvalue()


def _benchmark(run: Run, info: CellInfo, samples: list[Sample]) -> pyperf.Benchmark:
    import pyperf

    runs = []
    for sample in samples:
        values = [t / 1e9 for t in kept(sample)]
        if values:
            metadata = _metadata(run, info, sample)
            runs.append(pyperf.Run(values, metadata=metadata, collect_metadata=False))
    return pyperf.Benchmark(runs)


def _metadata(run: Run, info: CellInfo, sample: Sample) -> dict[str, Any]:
    """What pyperf requires to be there or equal in all runs, and what tells where this came from."""
    found = {
        "name": f"{cell_key(info.case, info.cell)} {sample.variant}",
        "unit": "second",
        "loops": max(1, sample.loops),
        "description": info.title,
        "cpu_model_name": str(run.info.host.get("fingerprint", {}).get("cpu", "")),
        "date": run.info.started[:19].replace("T", " "),
        "sparsebench_run": run.info.id,
        "sparsebench_block": sample.block,
    }
    return {key: value for key, value in found.items() if value != ""}
