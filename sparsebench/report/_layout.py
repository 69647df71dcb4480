"""What every table shares: rows in panels, host and suite in one line, reasons as footnotes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sparsebench.report._numbers import plain
from sparsebench.runs.records import RunInfo
from sparsebench.runs.summary import Row, RunSummary
from sparsebench.wrapping import WIDTH, wrap

LISTED = 2000  # rows that a terminal gets one by one; of more it gets what is news, and the others counted
UNITS = {"kernel": "ms", "inference": "ms per batch", "training": "ms"}  # of a whole kind: trainings differ, see Panel


@dataclass(frozen=True)
class Panel:
    """Rows of one case that differ in one axis only: `columns` are its values, `fixed` the others."""

    case: str
    kind: str
    title: str
    axis: str  # "" if the case has none
    columns: tuple[Any, ...]
    fixed: Mapping[str, Any]
    rows: Mapping[str, Mapping[Any, Row]]  # variant -> column -> row

    @property
    def heading(self) -> str:
        """The case, what it is, the axes that are the same in the whole panel, and what a training's time is of."""
        unit = self.unit if self.unit != UNITS.get(self.kind, "ms") else ""
        return ", ".join(filter(None, (f"{self.case}: {self.title}", axes_text(unsaid(self.fixed, self.title)), unit)))

    @property
    def unit(self) -> str:
        """What the times are: "ms", and of what; only a whole training counts its steps."""
        timed = [row for row in self.all_rows() if row.ms is not None]
        if self.kind != "training" or not timed:
            return UNITS.get(self.kind, "ms")
        return "ms per training" if any("steps" in row.metrics for row in timed) else "ms per step"

    def all_rows(self) -> Iterator[Row]:
        """Every row, variant by variant."""
        for columns in self.rows.values():
            yield from columns.values()


def panels(rows: Sequence[Row]) -> list[Panel]:
    """The rows of a run as panels, in the order of the plan."""
    cases: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        cases.setdefault((row.kind, row.case), []).append(row)
    return [panel for group in cases.values() for panel in _panels_of_case(group)]


def _panels_of_case(rows: Sequence[Row]) -> Iterator[Panel]:
    axis = column_axis(row.cell for row in rows)
    parts: dict[str, list[Row]] = {}
    for row in rows:
        fixed = {k: v for k, v in row.cell.items() if k != axis}
        parts.setdefault(repr(fixed), []).append(row)
    for part in parts.values():
        table: dict[str, dict[Any, Row]] = {}
        for row in part:
            table.setdefault(row.variant, {})[plain(row.cell.get(axis, ""))] = row
        yield Panel(
            case=part[0].case,
            kind=part[0].kind,
            title=common_words([row.title for row in part]),
            axis=axis,
            columns=tuple(dict.fromkeys(plain(row.cell.get(axis, "")) for row in part)),
            fixed={k: v for k, v in part[0].cell.items() if k != axis},
            rows=table,
        )


def column_axis(cells: Iterable[Mapping[str, Any]]) -> str:
    """The axis whose values stand side by side: the sparsity, else the last that has more than one value."""
    values: dict[str, set[str]] = {}
    for cell in cells:
        for axis, value in cell.items():
            values.setdefault(axis, set()).add(repr(value))
    if "sparsity" in values:
        return "sparsity"
    return next((axis for axis in reversed(values) if len(values[axis]) > 1), next(reversed(values), ""))


def axis_text(axis: str, value: object) -> str:
    """ "sparsity 0.9", "threads 1"; a pass needs no name."""
    return plain(value) if axis == "pass" else f"{axis} {plain(value)}"


def axes_text(axes: Mapping[str, Any]) -> str:
    """A cell in words: "sparsity 0.9, both, threads 1"."""
    return ", ".join(axis_text(axis, value) for axis, value in axes.items())


def unsaid(axes: Mapping[str, Any], title: str) -> dict[str, Any]:
    """The axes that a title does not tell already, as "threads 1", or as kernels tell their sparsity, "at 0.9"."""
    titled = f"{title},"
    return {
        axis: value
        for axis, value in axes.items()
        if axis_text(axis, value) not in title and not (axis == "sparsity" and f" at {plain(value)}," in titled)
    }


def common_words(titles: Sequence[str]) -> str:
    """The words that the titles of several cells have in common (less an "at" before one that differs)."""
    split = [title.split() for title in dict.fromkeys(titles)]
    if len(split) == 1 or len({len(words) for words in split}) > 1:
        return titles[0]
    kept: list[str] = []
    for words in zip(*split, strict=True):
        if len(set(words)) == 1:
            kept.append(words[0])
            continue
        if kept and kept[-1] == "at":
            kept.pop()
        if kept and words[0].endswith(","):
            kept[-1] = kept[-1].rstrip(",") + ","
    return " ".join(kept).rstrip(",")


class Footnotes:
    """Reasons, each with a number, said once."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def mark(self, text: str) -> str:
        """ "[1]", the number of this text; nothing for no text."""
        if not text:
            return ""
        if text not in self.texts:
            self.texts.append(text)
        return f"[{self.texts.index(text) + 1}]"

    def lines(self, width: int = WIDTH) -> list[str]:
        """The texts, wrapped."""
        numbered = enumerate(self.texts, start=1)
        return [line for number, text in numbered for line in wrap(f"[{number}] {text}", width, hang=6)]


def failure_mark(row: Row, footnotes: Footnotes) -> str:
    """A row without a time, as it stands in a table: its status, and the number of its reason."""
    return f"{row.status} {footnotes.mark(f'{row.status}: {row.reason}' if row.reason else '')}".strip()


BEST, ROUGH = "*", "~"


ROUGH_LEGEND = f"{ROUGH} = a rough idea, not a result: other work spoiled every block; run again on a quieter machine"


def rough_mark(row: Row) -> str:
    """Behind every number of a row whose every block other work spoiled."""
    return ROUGH if row.is_rough else ""


def winner_mark(row: Row) -> str:
    """Behind the first number of a row: `BEST` or `ROUGH`; no row is both."""
    return BEST if row.is_best else rough_mark(row)


def note_lines(rows: Iterable[Row]) -> list[str]:
    """The notes of rows, each said once: for which variants, and in how many of their rows if not in all."""
    where: dict[tuple[str, str], int] = {}
    total: dict[str, int] = {}
    for row in rows:
        total[row.variant] = total.get(row.variant, 0) + 1
        for note in row.notes:
            where[row.variant, note] = where.get((row.variant, note), 0) + 1
    said: dict[str, list[str]] = {}
    for (variant, note), count in where.items():
        partly = f" (in {count} of {total[variant]})" if count < total[variant] else ""
        said.setdefault(f"{note}{partly}", []).append(variant)
    return [f"{', '.join(variants)}: {note}" for note, variants in said.items()]


def where_and_when(info: RunInfo) -> str:
    """The first line of every report: suite, processor, cores, threads, blocks, date, commit."""
    host = info.host.get("fingerprint", {})
    threads = sorted({int(c.cell["threads"]) for c in info.cells if "threads" in c.cell})
    blocks = sorted({c.blocks for c in info.cells})
    cores = host.get("cores_allowed")
    commit = str(info.git.get("commit", ""))[:10] + ("+changes" if info.git.get("dirty") else "")
    return " · ".join(
        part
        for part in (
            str(info.suite.get("name", "")),
            str(host.get("cpu", "")),
            _count(cores, "core") if cores else "",
            f"threads {', '.join(map(str, threads))}" if threads else "",
            f"blocks {', '.join(map(str, blocks))}" if blocks else "",
            info.started[:16].replace("T", " ") + " UTC",
            commit,
        )
        if part
    )


def loss_lines(summary: RunSummary) -> list[str]:
    """What was lost and what went wrong: statuses, dropped rounds, spoiled blocks, unreadable lines."""
    rows = summary.rows
    statuses = ", ".join(f"{count} {status}" for status, count in summary.counts().items())
    rounds, dropped = sum(r.rounds for r in rows), sum(r.rounds_dropped for r in rows)
    spoiled = sum(r.blocks_contaminated for r in rows)
    timed = spoiled + sum(r.blocks for r in rows if not r.is_rough)
    lines = [
        f"rows: {statuses or 'none'}",
        f"spoiled by other work, over all rows: {dropped} of {rounds} rounds, {spoiled} of {timed} blocks",
    ]
    lines += [f"plugin {p.name} is quarantined: {p.error}" for p in summary.info.plugins if p.status != "ok"]
    return lines + list(summary.problems)


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
