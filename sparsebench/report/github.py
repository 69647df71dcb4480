"""For GitHub's workflows: a step summary in Markdown, short first and the rest folded; and annotations of a comparison.

A summary may have 1 MiB, and a step 10 annotations of each level: what exceeds that is counted, not silently cut.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sparsebench.report._duels import markdown
from sparsebench.report._layout import Footnotes, axes_text, loss_lines, where_and_when
from sparsebench.report._numbers import percent, percent_span
from sparsebench.report._verdicts import QUIET, by_case, case_heading, change_table, counted, heading_lines
from sparsebench.report.markdown import contest_rows, escaped, markdown_table
from sparsebench.runs.compare import FAIL_ON, Change, Comparison
from sparsebench.runs.duel import FAIL_ON as DUEL_FAIL_ON
from sparsebench.runs.duel import Duel
from sparsebench.runs.summary import Row, RunSummary

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
        other = " other" if any(loud.values()) else ""
        lines += ["", f"<details><summary>{count}{other} rows</summary>"]
        lines += [*(line for case, rows in rest.items() if rows for line in _case(case, rows)), "", "</details>"]
    return "\n".join(_within(lines)) + "\n"


def render_duels(duels: Sequence[Duel]) -> str:
    """What `ab` found as a step summary: the verdicts counted, then the table."""
    counts = Counter(duel.verdict for duel in duels)
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
    return (
        "\n".join(
            _within([f"## sparsebench ab: {escaped(told or 'nothing compared')}", "", *markdown(duels).splitlines()])
        )
        + "\n"
    )


def workflow_commands(comparison: Comparison, fail_on: Collection[str] = FAIL_ON) -> list[str]:
    """Workflow commands: an error for every row that fails the job, a warning for what else got worse."""
    worse = [row for row in comparison.rows if row.verdict in FAIL_ON or row.verdict in fail_on]
    return _by_level([(row.verdict, _title(row), _message(row)) for row in worse], fail_on)


def duel_commands(duels: Sequence[Duel], fail_on: Collection[str] = DUEL_FAIL_ON) -> list[str]:
    """The same of what `ab` found."""
    worse = [duel for duel in duels if duel.verdict in DUEL_FAIL_ON or duel.verdict in fail_on]
    return _by_level([(d.verdict, f"{d.verdict}: {d.b} in {d.case}", _duel_message(d)) for d in worse], fail_on)


def _by_level(found: Sequence[tuple[str, str, str]], fail_on: Collection[str]) -> list[str]:
    """Annotations of (verdict, title, message)."""
    errors, warnings = ([each for each in found if (each[0] in fail_on) is fails] for fails in (True, False))
    return [*_commands("error", errors), *_commands("warning", warnings)]


def _commands(level: str, found: Sequence[tuple[str, str, str]]) -> list[str]:
    shown = found if len(found) <= MOST else found[: MOST - 1]
    lines = [f"::{level} title={_property(title)}::{_data(message)}" for _, title, message in shown]
    if len(found) > len(shown):
        lines.append(f"::{level} title=sparsebench::{_data(f'{len(found) - len(shown)} more rows; see the summary')}")
    return lines


def _title(row: Change) -> str:
    return f"{row.verdict}: {row.variant} in {row.case}"


def _message(row: Change) -> str:
    return _told(row.cell, row.change, (row.low, row.high), row.reason) or row.title


def _duel_message(duel: Duel) -> str:
    judged = duel.judgement
    if judged is None:
        return _told(duel.cell, None, (None, None), duel.reason) or duel.title
    return _told(duel.cell, judged.change, (judged.low, judged.high), f"against {duel.a}")


def _told(cell: Mapping[str, Any], change: float | None, bounds: tuple[float | None, float | None], reason: str) -> str:
    interval = percent_span(*bounds)
    told = f"{percent(change)} time{f' ({interval})' if interval else ''}" if change is not None else ""
    return "; ".join(filter(None, (axes_text(cell), told, reason)))


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
