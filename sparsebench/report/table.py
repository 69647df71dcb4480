"""Tables for a terminal, 100 columns wide: who is how fast in every case, what failed and why, and who wins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from sparsebench.report import _layout
from sparsebench.report import _scores as score_tables
from sparsebench.report._detail import break_even_text, ceiling_lines, detail_legend, detail_table, detailed, of_case
from sparsebench.report._grid import fit
from sparsebench.report._layout import (
    BEST,
    ROUGH_LEGEND,
    UNITS,
    Footnotes,
    Panel,
    failure_mark,
    loss_lines,
    note_lines,
    panels,
    rough_mark,
    where_and_when,
    winner_mark,
)
from sparsebench.report._numbers import digits, mebibytes, metric, ms, plain, ratio, ratio_span, span
from sparsebench.report._standings import who_wins
from sparsebench.report._verdicts import comparison_table
from sparsebench.runs.compare import Comparison
from sparsebench.runs.records import SCORED
from sparsebench.runs.summary import Row, RunSummary
from sparsebench.wrapping import wrap

OTHER_CLASS = "†"
GFLOPS = f"GFLOP/s {BEST}"


def render(summary: RunSummary) -> str:
    """The run as tables; every line at most 100 columns unless a name alone is longer."""
    lines = [*wrap(where_and_when(summary.info), indent=0), *_legend(summary)]
    raced = [row for row in summary.rows if row.kind not in SCORED]
    found = panels(raced) if len(raced) <= _layout.LISTED else []
    lines += _counted(raced) if raced and not found else []
    for kind in dict.fromkeys(panel.kind for panel in found):
        lines += ["", f"{kind.upper()} ({UNITS.get(kind, 'ms')})"]
        of_kind = [panel for panel in found if panel.kind == kind]
        for case in dict.fromkeys(panel.case for panel in of_kind):
            lines += _case([panel for panel in of_kind if panel.case == case], summary)
    lines += _scores(summary)
    if summary.contests:
        lines += ["", "WHO WINS (geometric means over the cells that all who are listed solved)"]
        lines += who_wins(summary.contests, summary.break_evens)
    lines += ["", *(line for text in loss_lines(summary) for line in wrap(text, indent=0))]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def render_comparison(comparison: Comparison) -> str:
    """Two runs as a table, what matters first."""
    return comparison_table(comparison)


def _counted(rows: Sequence[Row]) -> list[str]:
    """Of more rows than anybody reads: a line for each case, and what kept rows from having a time."""
    first = f"not listed, {len(rows)} rows (--format markdown, csv or json has them all):"
    lines = ["", *wrap(first, indent=0)]
    footnotes = Footnotes()
    cases: dict[str, Counter[str]] = {}
    for row in rows:
        cases.setdefault(row.case, Counter())[row.status if row.ms is not None else failure_mark(row, footnotes)] += 1
    for case, ends in cases.items():
        lines += wrap(f"{case}: {', '.join(f'{count} {end}' for end, count in ends.items())}")
    return [*lines, *footnotes.lines()]


def _scores(summary: RunSummary) -> list[str]:
    """Trainings, a table of results and one of costs for each case; who is most accurate."""
    lines: list[str] = []
    for kind in dict.fromkeys(score.kind for score in summary.scores):
        legend = [] if lines else wrap(score_tables.LEGEND, indent=0, hang=0)
        lines += ["", kind.upper(), *legend]
        for group in score_tables.by_case([s for s in summary.scores if s.kind == kind]).values():
            footnotes = Footnotes()
            lines += ["", *wrap(score_tables.heading(group), indent=0)]
            lines += fit([score_tables.result_rows(group, summary.rankings, footnotes, BEST)])
            costs = score_tables.cost_rows(group)
            lines += ["", *fit([costs])] if costs else []
            told = [
                score_tables.goal_text(group),
                score_tables.ranking_text(summary.rankings, group),
                *score_tables.note_texts(group),
            ]
            lines += [line for text in filter(None, told) for line in wrap(text)] + footnotes.lines()
    return lines


def _legend(summary: RunSummary) -> list[str]:
    """What the marks mean, as far as they occur."""
    if not summary.contests:
        return []
    baselines = list(dict.fromkeys(cell.baseline for cell in summary.info.cells if cell.kind not in SCORED))
    text = (
        f"Medians over blocks, caches warm. 2.00x = takes half the time of {' or '.join(baselines)}, behind it "
        "the range over blocks."
    )
    kernels = any(cell.kind == "kernel" for cell in summary.info.cells)
    if kernels and detailed(summary.info):
        text += f" {detail_legend(summary.info)}"
    elif any(row.is_best for row in summary.rows):
        text += f" {BEST} = fastest."
        if any(row.is_best and row.useful_gflops for row in summary.rows):
            text += f" {GFLOPS}: of the fastest, useful / dense-equivalent."
    if any(row.is_rough for row in summary.rows):
        text += f" {ROUGH_LEGEND}."
    if any(not row.same_class for row in summary.rows):
        text += f" {OTHER_CLASS} = another precision class, takes no part in who wins."
    ceilings = [line for told in ceiling_lines(summary.info) for line in wrap(told, indent=0)]
    return [*wrap(text, indent=0, hang=0), *(ceilings if detailed(summary.info) else [])]


def _case(parts: Sequence[Panel], summary: RunSummary) -> list[str]:
    """All panels of one case, and one list of footnotes below them."""
    footnotes = Footnotes()
    lines: list[str] = []
    for panel in parts:
        lines += ["", *wrap(panel.heading, indent=0)]
        if any(row.splits_ms or row.metrics for row in panel.all_rows()):
            lines += _details(panel, footnotes)
        elif panel.kind == "kernel" and detailed(summary.info):
            names = {variant: _name(columns.values()) for variant, columns in panel.rows.items()}
            lines += detail_table(panel, names, footnotes)
        else:
            lines += _matrix(panel, footnotes)
        baseline = next((row.variant for row in panel.all_rows() if row.is_baseline), "")
        crossings = break_even_text(of_case(summary.break_evens, panel.case, panel.fixed), baseline)
        lines += wrap(crossings) if crossings else []
    lines += footnotes.lines()
    notes = note_lines(row for panel in parts for row in panel.all_rows())
    return lines + [line for note in notes for line in wrap(note)]


def _matrix(panel: Panel, footnotes: Footnotes) -> list[str]:
    """Variants down, values of the panel's axis across."""

    def build(ranges: bool) -> list[list[str]]:
        head = [panel.axis, *(plain(column) for column in panel.columns)]
        body = [
            [_name(columns.values()), *(_entry(columns.get(c), footnotes, ranges) for c in panel.columns)]
            for columns in panel.rows.values()
        ]
        return [head, *body, *last]

    last = _gflops(panel)
    return fit([build(True), build(False)])


def _gflops(panel: Panel) -> list[list[str]]:
    """A last line: what the fastest of each column computes in a second, if that is known."""
    best = [next((r[c] for r in panel.rows.values() if c in r and r[c].is_best), None) for c in panel.columns]
    told = [
        f"{digits(row.useful_gflops)} / {digits(row.dense_gflops)}"
        if row and row.useful_gflops and row.dense_gflops
        else ""
        for row in best
    ]
    return [[GFLOPS, *told]] if any(told) else []


def _entry(row: Row | None, footnotes: Footnotes, ranges: bool) -> str:
    """One row in a matrix: the ratio, for the baseline the time, for a failure its status."""
    if row is None:
        return ""
    if row.ms is None:
        return failure_mark(row, footnotes)
    mark = winner_mark(row)
    if row.is_baseline or row.ratio is None:
        return f"{ms(row.ms)}{mark} {span(row.ms_low, row.ms_high) if ranges else ''}".strip()
    return f"{ratio(row.ratio)}{mark} {ratio_span(row.ratio_low, row.ratio_high) if ranges else ''}".strip()


def _name(rows: Iterable[Row]) -> str:
    """The variant, marked if it is of another precision class than the baseline."""
    first = next(iter(rows))
    return first.variant if first.same_class else f"{first.variant} {OTHER_CLASS}"


def _details(panel: Panel, footnotes: Footnotes) -> list[str]:
    """Two tables for each column, variants down: time, ratio, metrics, memory; then the parts of a step."""
    lines: list[str] = []
    for column in panel.columns:
        rows = [columns[column] for columns in panel.rows.values() if column in columns]
        first = f"{panel.axis} {plain(column)}".strip()
        lines += [*([""] if lines else []), *fit([_result_rows(rows, first, footnotes)])]
        if any(row.splits_ms for row in rows):
            lines += ["", *fit([_split_rows(rows)])]
    return lines


def _result_rows(rows: Sequence[Row], first: str, footnotes: Footnotes) -> list[list[str]]:
    metrics = list(dict.fromkeys(key for row in rows for key in row.metrics))
    head = [first, "time", "ratio", *(name.replace("_", " ") for name in metrics), "memory"]
    body = []
    for row in rows:
        time = f"{ms(row.ms)}{winner_mark(row)} {span(row.ms_low, row.ms_high)}".strip() if row.ms is not None else ""
        compared = ""
        if row.ratio is not None and not row.is_baseline:
            compared = f"{ratio(row.ratio)}{rough_mark(row)} {ratio_span(row.ratio_low, row.ratio_high)}".strip()
        told = (metric(key, row.metrics[key]) if key in row.metrics else "" for key in metrics)
        memory = mebibytes(row.rss_peak) if row.ms is not None else ""
        body.append([_name([row]), time or failure_mark(row, footnotes), compared, *told, memory])
    return [head, *body]


def _split_rows(rows: Sequence[Row]) -> list[list[str]]:
    """Where the time of a step goes."""
    splits = list(dict.fromkeys(key for row in rows for key in row.splits_ms))
    timed = [row for row in rows if row.splits_ms]
    body = [[_name([row]), *(ms(row.splits_ms.get(key)) for key in splits)] for row in timed]
    return [["of which, per step", *splits], *body]
