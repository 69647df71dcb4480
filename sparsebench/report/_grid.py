"""Rows of text as a table no wider than the terminal: the fullest version that fits, else in slices of columns."""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import tabulate

from sparsebench.report._layout import WIDTH

Cells = Sequence[Sequence[str]]  # the first row is the head


def grid(rows: Cells, form: str = "simple") -> list[str]:
    """A table as lines; rows may be shorter than the head."""
    head, *body = rows
    full = [[*row, *[""] * (len(head) - len(row))] for row in body]
    return tabulate(full, headers=head, tablefmt=form, disable_numparse=True).splitlines()


def fit(versions: Sequence[Cells], width: int = WIDTH) -> list[str]:
    """The first version whose table is at most `width` wide; if none is, the last one in slices of columns."""
    for rows in versions:
        lines = grid(rows)
        if max(map(len, lines)) <= width:
            return lines
    return [line for part in _slices(versions[-1], width) for line in grid(part)]


def _slices(rows: Cells, width: int) -> list[Cells]:
    """The rows cut into groups of columns that fit, each with the first column."""
    count = len(rows[0])
    full = [[*row, *[""] * (count - len(row))] for row in rows]
    parts: list[Cells] = []
    start = 1
    while start < count:
        end = count
        while end > start + 1 and max(map(len, grid(_columns(full, start, end)))) > width:
            end -= 1
        parts.append(_columns(full, start, end))
        start = end
    return parts


def _columns(rows: Cells, start: int, end: int) -> Cells:
    return [[row[0], *row[start:end]] for row in rows]
