"""The summary of a run, or a comparison, as one JSON object: the same fields as the records in `sparsebench.runs`."""

from __future__ import annotations

from typing import Any

import msgspec

from sparsebench.runs.compare import Comparison
from sparsebench.runs.summary import RunSummary


def render(summary: RunSummary) -> str:
    """{info, rows, contests, break_evens, problems, path, counts}; times in milliseconds."""
    return _text({**msgspec.structs.asdict(summary), "counts": summary.counts()})


def render_comparison(comparison: Comparison) -> str:
    """{base, head, rows, notes, judged, counts, worst, …}; `change` is head / base."""
    told = {"counts": comparison.counts(), "worst": comparison.worst()}
    return _text({**msgspec.structs.asdict(comparison), **told})


def _text(fields: dict[str, Any]) -> str:
    return msgspec.json.format(msgspec.json.encode(fields), indent=2).decode() + "\n"
