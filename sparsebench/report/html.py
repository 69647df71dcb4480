"""One page of HTML that needs nothing else: no script, no network; what is best or failed is marked."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from html import escape

from sparsebench.report import _scores as score_tables
from sparsebench.report._detail import break_even_text, of_case
from sparsebench.report._layout import ROUGH_LEGEND, Footnotes, loss_lines, note_lines, panels, where_and_when
from sparsebench.report._verdicts import by_case, case_heading, change_table, counted, heading_lines
from sparsebench.report.markdown import contest_rows, host_rows, panel_rows
from sparsebench.runs.compare import Comparison
from sparsebench.runs.records import SCORED
from sparsebench.runs.summary import RunSummary

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 110em; padding: 0 1em; }
table { border-collapse: collapse; margin: .6em 0; font-variant-numeric: tabular-nums; }
th, td { padding: .15em .8em .15em 0; text-align: left; border-bottom: 1px solid #8884; white-space: nowrap; }
.best { font-weight: 600; } .wrong, .failed, .missing, .slower { color: #b00020; } .faster, .fixed { color: #12701c; }
.scroll { overflow-x: auto; } li { margin: .1em 0; } :root { color-scheme: light dark; }
"""
MARKED = ("wrong", "failed", "missing", "slower", "faster", "fixed")


def render(summary: RunSummary) -> str:
    """The run as a page."""
    info = summary.info
    name = f"{info.suite.get('name', 'run')}: {info.id}"
    parts = [
        f"<h1>{escape(name)}</h1>",
        _p(where_and_when(info)),
        f"<p><code>{escape(shlex.join(info.argv))}</code></p>",
    ]
    parts.append(
        _p("Times are medians over blocks of fresh processes, caches warm. A ratio is baseline's time / this time.")
    )
    if any(row.is_rough for row in summary.rows):
        parts.append(_p(f"{ROUGH_LEGEND}."))
    if summary.contests:
        parts += ["<h2>Who wins</h2>", _table(contest_rows(summary.contests))]
    for panel in panels([row for row in summary.rows if row.kind not in SCORED]):
        footnotes = Footnotes()
        rows = list(panel.all_rows())
        baseline = next((row.variant for row in rows if row.is_baseline), "")
        said = [break_even_text(of_case(summary.break_evens, panel.case, panel.fixed), baseline)]
        table = _table(panel_rows(panel, footnotes))
        told = [*footnotes.lines(10_000), *filter(None, said), *note_lines(rows)]
        parts += [f"<h3>{escape(panel.heading)}</h3>", table, _list(told)]
    parts += _scores(summary)
    parts += ["<h2>What was lost</h2>", _list(loss_lines(summary)), "<h2>Where</h2>", _table(host_rows(summary))]
    return _page(name, parts)


def render_comparison(comparison: Comparison) -> str:
    """Two runs as a page, what matters first."""
    parts = [f"<h1>{escape(counted(comparison))}</h1>", _list(heading_lines(comparison))]
    for case, rows in by_case(comparison).items():
        footnotes = Footnotes()
        table = _table(change_table(rows, footnotes))
        parts += [f"<h2>{escape(case_heading(case, rows))}</h2>", table, _list(footnotes.lines(10_000))]
    return _page("comparison", parts)


def _scores(summary: RunSummary) -> list[str]:
    parts: list[str] = []
    for group in score_tables.by_case(list(summary.scores)).values():
        footnotes = Footnotes()
        parts += [f"<h2>{escape(score_tables.heading(group))}</h2>", _p(score_tables.LEGEND)]
        parts.append(_table(score_tables.result_rows(group, summary.rankings, footnotes, "*")))
        costs = score_tables.cost_rows(group)
        parts += [_table(costs)] if costs else []
        told = [score_tables.goal_text(group), score_tables.ranking_text(summary.rankings, group)]
        parts.append(_list([*told, *score_tables.note_texts(group), *footnotes.lines(10_000)]))
    return parts


def _page(title: str, parts: Sequence[str]) -> str:
    head = f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
    body = "\n".join(part for part in parts if part)
    return f"{head}\n<style>{STYLE}</style></head><body>\n{body}\n</body></html>\n"


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    lines = [_row(head, "th"), *(_row([*row, *[""] * (len(head) - len(row))], "td") for row in body)]
    return '<div class="scroll"><table>\n' + "\n".join(lines) + "\n</table></div>"


def _row(cells: Sequence[str], tag: str) -> str:
    return "<tr>" + "".join(_cell(cell, tag) for cell in cells) + "</tr>"


def _cell(text: str, tag: str) -> str:
    """A cell; what is bold in Markdown is marked, and so is a verdict."""
    if text.startswith("**") and text.endswith("**") and len(text) > 4:
        return f'<{tag} class="best">{escape(text[2:-2])}</{tag}>'
    word = text.split(" ", 1)[0]
    mark = f' class="{word}"' if tag == "td" and word in MARKED else ""
    return f"<{tag}{mark}>{escape(text)}</{tag}>"


def _list(texts: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(' '.join(text.split()))}</li>" for text in texts if text)
    return f"<ul>{items}</ul>" if items else ""


def _p(text: str) -> str:
    return f"<p>{escape(text)}</p>"
