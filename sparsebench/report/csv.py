"""One line for every row of a run, for spreadsheets and data frames; a cell's axes are columns of their own."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

from sparsebench.report._numbers import plain
from sparsebench.runs.records import cell_key
from sparsebench.runs.summary import Row, RunSummary

OF_CELLS = ("op", "group", "tags", "version", "margin", "baseline")
COLUMNS = (
    "variant", "status", "reason", "precision", "is_baseline", "is_best", "is_rough", "ms", "ms_low", "ms_high",
    "ratio", "ratio_low", "ratio_high", "peer", "peer_ratio", "useful_gflops", "dense_gflops", "ceiling_gflops",
    "ceiling_bound", "ceiling_share", "rss_peak", "max_rel_err", "tolerance",
    "blocks", "blocks_planned", "blocks_contaminated", "rounds", "rounds_dropped",
)  # fmt: skip


def render(summary: RunSummary) -> str:
    """Head line and rows; empty where there is no number, full precision where there is."""
    axes = _keys(row.cell for row in summary.rows)
    splits = _keys(row.splits_ms for row in summary.rows)
    metrics = _keys(row.metrics for row in summary.rows)
    named = [f"{name}_reached" if name in axes else name for name in metrics]  # a sparsity is asked for, and reached
    infos = summary.info.planned()
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    measured = [*COLUMNS, *(f"{split}_ms" for split in splits), *named, "notes"]
    out.writerow(["run", "case", "kind", "title", *OF_CELLS, *axes, *measured])
    for row in summary.rows:
        info = infos[cell_key(row.case, row.cell)]
        out.writerow(
            [
                summary.info.id,
                row.case,
                row.kind,
                row.title,
                *(_text(getattr(info, column)) for column in OF_CELLS),
                *(plain(row.cell[axis]) if axis in row.cell else "" for axis in axes),
                *(_value(row, column) for column in COLUMNS),
                *(row.splits_ms.get(split, "") for split in splits),
                *(row.metrics.get(name, "") for name in metrics),
                "; ".join(row.notes),
            ]
        )
    return text.getvalue()


def _text(value: object) -> object:
    return " ".join(map(str, value)) if isinstance(value, list) else value


def _value(row: Row, column: str) -> object:
    value = getattr(row, column)
    return "" if value is None else int(value) if isinstance(value, bool) else value


def _keys(tables: Iterable[dict[str, object]] | Iterable[dict[str, float]]) -> list[str]:
    return list(dict.fromkeys(key for table in tables for key in table))
