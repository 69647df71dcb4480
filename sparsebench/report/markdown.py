"""The whole run in GitHub's Markdown: every row with time, range, GFLOP/s, checks and losses; nothing is left out."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence

from sparsebench.report import _scores as score_tables
from sparsebench.report._detail import break_even_text, ceiling_lines, ceiling_text, of_case
from sparsebench.report._grid import grid
from sparsebench.report._layout import (
    BEST,
    ROUGH_LEGEND,
    Footnotes,
    Panel,
    axes_text,
    failure_mark,
    loss_lines,
    note_lines,
    panels,
    rough_mark,
    where_and_when,
)
from sparsebench.report._numbers import digits, mebibytes, metric, plain, ratio, ratio_span, span
from sparsebench.report._verdicts import by_case, case_heading, change_table, counted, heading_lines
from sparsebench.runs.compare import Comparison
from sparsebench.runs.contests import Contest
from sparsebench.runs.records import SCORED
from sparsebench.runs.summary import Row, RunSummary


def render(summary: RunSummary) -> str:
    """The run as a Markdown page."""
    lines = [f"# {summary.info.suite.get('name', 'run')}: {summary.info.id}", "", where_and_when(summary.info), ""]
    lines += [f"`{shlex.join(summary.info.argv)}`", ""]
    lines += [
        "Times are medians over blocks (fresh processes), caches warm, with the range over blocks. A ratio is the",
        "baseline's time over this one's, paired within rounds: above 1 is faster. **Bold** is the fastest of the",
        "baseline's precision class. Useful GFLOP/s count the kept weights, dense-equivalent ones all. Of ceiling: the",
        "share of the useful GFLOP/s that this machine was measured to allow, and what sets that limit.",
    ]
    if any(row.is_rough for row in summary.rows):
        lines += [f"{escaped(ROUGH_LEGEND)}."]
    found = panels([row for row in summary.rows if row.kind not in SCORED])
    for kind in dict.fromkeys(panel.kind for panel in found):
        lines += ["", f"## {kind}"]
        of_kind = [panel for panel in found if panel.kind == kind]
        for case in dict.fromkeys(panel.case for panel in of_kind):
            lines += _case([panel for panel in of_kind if panel.case == case], summary)
    lines += _scores(summary)
    if summary.contests:
        lines += ["", "## Who wins", "", "Geometric means of the ratio over the cells that all who are listed solved."]
        lines += ["", *markdown_table(contest_rows(summary.contests)), *_crossings(summary)]
    lines += ["", "## What was lost", ""]
    lines += [f"- {escaped(text)}" for text in loss_lines(summary)]
    lines += ["", "## Where", "", *markdown_table(host_rows(summary))]
    return "\n".join(lines) + "\n"


def render_comparison(comparison: Comparison) -> str:
    """Two runs as a Markdown page."""
    footnotes = Footnotes()
    lines = ["# Comparison", "", *(f"- {escaped(text)}" for text in heading_lines(comparison))]
    lines += ["", f"**{counted(comparison)}**"]
    for case, rows in by_case(comparison).items():
        lines += ["", f"## {escaped(case_heading(case, rows))}", "", *markdown_table(change_table(rows, footnotes))]
    lines += ["", *(f"- {escaped(text)}" for text in footnotes.lines(10_000))]
    return "\n".join(lines).rstrip() + "\n"


def _scores(summary: RunSummary) -> list[str]:
    """Trainings: results and costs of each case."""
    lines: list[str] = []
    for kind in dict.fromkeys(score.kind for score in summary.scores):
        lines += ["", f"## {kind}", "", escaped(score_tables.LEGEND)]
        for group in score_tables.by_case([s for s in summary.scores if s.kind == kind]).values():
            footnotes = Footnotes()
            lines += ["", f"### {escaped(score_tables.heading(group))}", ""]
            lines += markdown_table(score_tables.result_rows(group, summary.rankings, footnotes, BEST))
            costs = score_tables.cost_rows(group)
            lines += ["", *markdown_table(costs)] if costs else []
            told = [
                score_tables.goal_text(group),
                score_tables.ranking_text(summary.rankings, group),
                *score_tables.note_texts(group),
            ]
            told += [text.strip() for text in footnotes.lines(10_000)]
            lines += ["", *(f"- {escaped(text)}" for text in filter(None, told))]
    return lines


def escaped(text: str) -> str:
    """Text that neither ends a table's cell nor begins one of HTML."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def markdown_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """A table of GitHub's Markdown as lines."""
    return grid([[escaped(cell) for cell in row] for row in rows], "github")


def _case(parts: Sequence[Panel], summary: RunSummary) -> list[str]:
    footnotes = Footnotes()
    lines: list[str] = []
    for panel in parts:
        lines += ["", f"### {escaped(panel.heading)}", "", *markdown_table(panel_rows(panel, footnotes))]
        baseline = next((row.variant for row in panel.all_rows() if row.is_baseline), "")
        crossings = break_even_text(of_case(summary.break_evens, panel.case, panel.fixed), baseline)
        lines += ["", escaped(crossings)] if crossings else []
    notes = note_lines(row for panel in parts for row in panel.all_rows())
    told = [*(text.strip() for text in footnotes.lines(10_000)), *notes]
    return lines + ([""] + [f"- {escaped(text)}" for text in told] if told else [])


def panel_rows(panel: Panel, footnotes: Footnotes) -> list[list[str]]:
    """Head and rows of a panel with every number there is."""
    rows = [row for column in panel.columns for row in _of_column(panel, column)]
    splits = _keys(row.splits_ms for row in rows)
    metrics = _keys(row.metrics for row in rows)
    head = [panel.axis, "variant", panel.unit, "range", "ratio", "range", "to best peer"]
    head += ["useful GFLOP/s", "dense-eq. GFLOP/s", "of ceiling", *(f"{split} per step" for split in splits)]
    head += [*(name.replace("_", " ") for name in metrics)]
    head += ["memory", "error / tolerance", "blocks", "dropped rounds", "precision"]
    return [head, *(_row(panel, row, splits, metrics, footnotes) for row in rows)]


def _row(panel: Panel, row: Row, splits: Sequence[str], metrics: Sequence[str], footnotes: Footnotes) -> list[str]:
    time = failure_mark(row, footnotes) if row.ms is None else f"{digits(row.ms)}{rough_mark(row)}"
    blocks = f"{row.blocks} of {row.blocks_planned}"
    return [
        plain(row.cell.get(panel.axis, "")),
        f"**{row.variant}**" if row.is_best else row.variant,
        time,
        span(row.ms_low, row.ms_high),
        "" if row.ratio is None else f"{ratio(row.ratio)}{rough_mark(row)}",
        ratio_span(row.ratio_low, row.ratio_high),
        f"{ratio(row.peer_ratio)} {row.peer}" if row.peer_ratio is not None else "",
        digits(row.useful_gflops) if row.useful_gflops else "",
        digits(row.dense_gflops) if row.dense_gflops else "",
        ceiling_text(row),
        *(digits(row.splits_ms[key]) if key in row.splits_ms else "" for key in splits),
        *(metric(key, row.metrics[key]) if key in row.metrics else "" for key in metrics),
        mebibytes(row.rss_peak),
        _check(row),
        f"{blocks}, {row.blocks_contaminated} spoiled" if row.blocks_contaminated else blocks,
        f"{row.rounds_dropped} of {row.rounds}",
        row.precision,
    ]


def _check(row: Row) -> str:
    if row.max_rel_err is None:
        return ""
    return f"{row.max_rel_err:.1e}" + (f" / {row.tolerance:.1e}" if row.tolerance is not None else "")


def _of_column(panel: Panel, column: object) -> Iterable[Row]:
    return (columns[column] for columns in panel.rows.values() if column in columns)


def _keys(tables: Iterable[dict[str, float]]) -> list[str]:
    return list(dict.fromkeys(key for table in tables for key in table))


def contest_rows(contests: Sequence[Contest]) -> list[list[str]]:
    """One row for every standing, and one for every variant that does not stand."""
    rows = [["cells", "place", "variant", "ratio", "range over blocks", "over"]]
    for contest in contests:
        name = ", ".join(filter(None, (contest.kind, contest.group, axes_text(contest.axes))))
        over = f"{contest.cells} of {contest.cells_planned}"
        for place, standing in enumerate(contest.standings, start=1):
            level = " (not told apart from the first)" if standing.variant in contest.level else ""
            told = [ratio(standing.ratio), ratio_span(standing.low, standing.high), over]
            rows.append([name, str(place), standing.variant + level, *told])
        rows += [[name, "", variant, "", "", why] for variant, why in contest.left_out.items()]
    return rows


def _crossings(summary: RunSummary) -> list[str]:
    """From which sparsity on the means pass the baseline's."""
    told = [
        f"- {', '.join(filter(None, (each.kind, each.group, axes_text(each.axes))))}: {each.variant} {each.text()}"
        for each in summary.break_evens
        if not each.case
    ]
    return ["", "Faster than the baseline from sparsity:", "", *map(escaped, told)] if told else []


def host_rows(summary: RunSummary) -> list[list[str]]:
    """The fingerprint, the volatile notes, libraries, plugins and overrides, as recorded."""
    info = summary.info
    rows = [["field", "value"]]
    for part in ("fingerprint", "volatile"):
        rows += [[f"{part}.{key}", _said(value)] for key, value in info.host.get(part, {}).items()]
    rows += [["ceilings", text] for text in ceiling_lines(info)]
    rows += [[f"library {name}", version] for name, version in info.libraries.items()]
    rows += [[f"plugin {p.name}", f"{p.distribution} {p.version} {p.sha256[:12]}".strip()] for p in info.plugins]
    rows += [[f"environment {name}", value] for name, value in info.environment.items()]
    rows += [[f"option {name}", _said(value)] for name, value in info.options.items()]
    return [*rows, ["folder", summary.path]]


def _said(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
