"""LaTeX for papers: a booktabs table for every panel, and one of who wins. It needs \\usepackage{booktabs} alone.

Each number stands with its range over blocks; what has no time stands with its status; machine, blocks and commit are
in a comment above, because a table without them says little.
"""

from __future__ import annotations

from collections.abc import Sequence

from sparsebench.report import _scores as score_tables
from sparsebench.report._layout import Footnotes, Panel, panels, rough_mark, where_and_when
from sparsebench.report._numbers import digits, plain, ratio, ratio_span
from sparsebench.report._verdicts import by_case, case_heading, change_table, counted, heading_lines
from sparsebench.report.markdown import contest_rows
from sparsebench.runs.compare import Comparison
from sparsebench.runs.records import SCORED
from sparsebench.runs.summary import Row, RunSummary

SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "†": r"\dag{}", "·": r"\textperiodcentered{}", "µ": r"\textmu{}", "×": r"$\times$", "−": "$-$", "±": r"$\pm$",
}  # fmt: skip


def render(summary: RunSummary) -> str:
    """The run as tables to \\input."""
    lines = _head(where_and_when(summary.info), f"run {summary.info.id}")
    for panel in panels([row for row in summary.rows if row.kind not in SCORED]):
        lines += _table(_panel(panel), panel.heading)
    for group in score_tables.by_case(list(summary.scores)).values():
        footnotes = Footnotes()
        rows = score_tables.result_rows(group, summary.rankings, footnotes, "*")
        lines += _table(rows, "; ".join([score_tables.heading(group), *footnotes.lines(10_000)]))
    if summary.contests:
        lines += _table(contest_rows(summary.contests), "geometric means of the ratio over the cells that all solved")
    return "\n".join(lines) + "\n"


def render_comparison(comparison: Comparison) -> str:
    """Two runs as tables to \\input."""
    lines = _head(*heading_lines(comparison), counted(comparison))
    for case, rows in by_case(comparison).items():
        footnotes = Footnotes()
        table = change_table(rows, footnotes)
        lines += _table(table, "; ".join([case_heading(case, rows), *footnotes.lines(10_000)]))
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Text in which nothing is a command."""
    return "".join(SPECIAL.get(letter, letter) for letter in " ".join(text.split()))


def _head(*texts: str) -> list[str]:
    return [*(f"% {' '.join(text.split())}" for text in texts), r"% needs \usepackage{booktabs}"]


def _panel(panel: Panel) -> list[list[str]]:
    head = [panel.axis, *(plain(column) for column in panel.columns)]
    return [head, *([name, *(_entry(rows.get(c)) for c in panel.columns)] for name, rows in panel.rows.items())]


def _entry(row: Row | None) -> str:
    """The baseline's time, the others' ratio with its range, or the status; bold (as in Markdown) is the fastest."""
    if row is None:
        return ""
    if row.ms is None:
        return row.status
    if row.is_baseline or row.ratio is None:
        text = f"{digits(row.ms)} ms"
    else:
        text = f"{ratio(row.ratio)} {ratio_span(row.ratio_low, row.ratio_high)}".strip()
    return f"**{text}**" if row.is_best else f"{text}{rough_mark(row)}"


def _table(rows: Sequence[Sequence[str]], caption: str) -> list[str]:
    head, *body = rows
    full = [[*row, *[""] * (len(head) - len(row))] for row in body]
    return [
        "", r"\begin{table}", r"\centering", rf"\caption{{{escaped(caption)}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}", r"\toprule", _line(head), r"\midrule",
        *map(_line, full), r"\bottomrule", r"\end{tabular}", r"\end{table}",
    ]  # fmt: skip


def _line(cells: Sequence[str]) -> str:
    return " & ".join(map(_cell, cells)) + r" \\"


def _cell(text: str) -> str:
    if text.startswith("**") and text.endswith("**") and len(text) > 4:
        return rf"\textbf{{{escaped(text[2:-2])}}}"
    return escaped(text)
