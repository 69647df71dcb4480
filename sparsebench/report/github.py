"""For GitHub's workflows: a step summary in Markdown, short first and the rest folded; and annotations of a comparison.

A summary may have 1 MiB, and a step 10 annotations of each level: what exceeds that is counted, not silently cut.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sparsebench.report._layout import Footnotes, axes_text, loss_lines, where_and_when
from sparsebench.report._numbers import percent, percent_span
from sparsebench.report._verdicts import by_case, case_heading, change_table, counted, heading_lines
from sparsebench.report.markdown import contest_rows, escaped, markdown_table
from sparsebench.runs.compare import FAIL_ON, Change, Comparison
from sparsebench.runs.summary import Row, RunSummary

QUIET = frozenset({"same", "unchanged", "anchor", "inconclusive", "not judged"})  # folded away
MOST = 10  # annotations of a level in one step: GitHub drops the others
LIMIT = 900_000  # characters of a summary, of which GitHub takes 1 MiB
FAILING = ("wrong", "crash", "timeout", "oom", "error")


def render(summary: RunSummary) -> str:
    """A run as a step summary: who wins, what failed, what was lost."""
    lines = [f"## {escaped(str(summary.info.suite.get('name', 'run')))}", "", escaped(where_and_when(summary.info))]
    if summary.contests:
        lines += ["", "### Who wins", "", *markdown_table(contest_rows(summary.contests))]
    failed = [row for row in summary.rows if row.status in FAILING]
    if failed:
        lines += ["", f"### {len(failed)} rows failed", "", *_capped([f"- {_failure(row)}" for row in failed])]
    lines += ["", *(f"- {escaped(text)}" for text in loss_lines(summary))]
    return "\n".join(lines) + "\n"


def render_comparison(comparison: Comparison) -> str:
    """Two runs as a step summary: the verdicts counted, what changed in the open, everything else folded."""
    lines = [f"## {escaped(counted(comparison))}", "", *(f"- {escaped(text)}" for text in heading_lines(comparison))]
    cases = by_case(comparison)
    loud = {case: [row for row in rows if row.verdict not in QUIET] for case, rows in cases.items()}
    lines += [line for case, rows in loud.items() if rows for line in _case(case, rows)]
    rest = {case: [row for row in rows if row.verdict in QUIET] for case, rows in cases.items()}
    if any(rest.values()):
        count = sum(map(len, rest.values()))
        lines += ["", f"<details><summary>{count} other rows</summary>"]
        lines += [*(line for case, rows in rest.items() if rows for line in _case(case, rows)), "", "</details>"]
    return "\n".join(_within(lines)) + "\n"


def workflow_commands(comparison: Comparison, fail_on: Collection[str] = FAIL_ON) -> list[str]:
    """Workflow commands: an error for every row that fails the job, a warning for what else got worse."""
    worse = [row for row in comparison.rows if row.verdict in FAIL_ON or row.verdict in fail_on]
    errors = [row for row in worse if row.verdict in fail_on]
    warnings = [row for row in worse if row.verdict not in fail_on]
    return [*_commands("error", errors), *_commands("warning", warnings)]


def _commands(level: str, rows: Sequence[Change]) -> list[str]:
    shown = rows if len(rows) <= MOST else rows[: MOST - 1]
    lines = [f"::{level} title={_property(_title(row))}::{_data(_message(row))}" for row in shown]
    if len(rows) > len(shown):
        lines.append(f"::{level} title=sparsebench::{_data(f'{len(rows) - len(shown)} more rows; see the summary')}")
    return lines


def _title(row: Change) -> str:
    return f"{row.verdict}: {row.variant} in {row.case}"


def _message(row: Change) -> str:
    change = percent(row.change)
    interval = percent_span(row.low, row.high)
    told = f"{change} time{f' ({interval})' if interval else ''}" if change else ""
    return "; ".join(filter(None, (axes_text(row.cell), told, row.reason))) or row.title


def _data(text: str) -> str:
    """What may stand behind `::`, as GitHub's own toolkit writes it."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    """What may stand as a property of a command."""
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _case(case: str, rows: Sequence[Change]) -> list[str]:
    footnotes = Footnotes()
    table = markdown_table(change_table(rows, footnotes))
    notes = [f"- {escaped(text.strip())}" for text in footnotes.lines(10_000)]
    return ["", f"### {escaped(case_heading(case, rows))}", "", *table, *(["", *notes] if notes else [])]


def _failure(row: Row) -> str:
    where = ", ".join(filter(None, (row.case, axes_text(row.cell))))
    return escaped(f"{row.status}: {row.variant} in {where}{': ' + row.reason if row.reason else ''}")


def _capped(lines: Sequence[str], most: int = 100) -> list[str]:
    return [*lines[:most], *([f"- and {len(lines) - most} more"] if len(lines) > most else [])]


def _within(lines: Sequence[str], limit: int = LIMIT) -> list[str]:
    """The lines that fit, and a last one that counts those that do not."""
    size = 0
    for number, line in enumerate(lines):
        size += len(line.encode()) + 1
        if size > limit:
            open_fold = lines[:number].count("</details>") < sum(x.startswith("<details>") for x in lines[:number])
            return [
                *lines[:number], "", *(["</details>", ""] if open_fold else []),
                f"{len(lines) - number} lines do not fit into a step summary; the JSON has them all.",
            ]  # fmt: skip
    return list(lines)
