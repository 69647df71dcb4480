"""Rows of text as a table no wider than the terminal: the fullest version that fits, else in slices of columns."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from tabulate import tabulate

from sparsebench.wrapping import WIDTH

Cells = Sequence[Sequence[str]]  # the first row is the head


def grid(rows: Cells, form: str = "simple") -> list[str]:
    """A table as lines; rows may be shorter than the head."""
    head, *body = rows
    full = [[*row, *[""] * (len(head) - len(row))] for row in body]
    return tabulate(full, headers=head, tablefmt=form, disable_numparse=True).splitlines()


def fit(versions: Sequence[Cells], width: int = WIDTH) -> list[str]:
    """The first version whose table is at most `width` wide; if none is, the last one in slices of columns."""
    for rows in versions:
        if _wide(_widths(rows)) <= width:
            return grid(rows)
    return [line for part in _slices(versions[-1], width) for line in grid(part)]


def _widths(rows: Cells) -> list[int]:
    """How wide `grid` makes each column: as its widest cell, or its head and two more."""
    head, *body = rows
    columns = zip_longest(*(map(len, map(str.strip, row)) for row in body), fillvalue=0)
    return [max((len(name) + 2, *column)) for name, column in zip_longest(head, columns, fillvalue=())]


def _wide(widths: Sequence[int]) -> int:
    return sum(widths) + 2 * (len(widths) - 1)


def _slices(rows: Cells, width: int) -> list[Cells]:
    """The rows cut into groups of columns that fit, each with the first column."""
    count = len(rows[0])
    full = [[*row, *[""] * (count - len(row))] for row in rows]
    widths = _widths(full)
    parts: list[Cells] = []
    start = 1
    while start < count:
        end = start + 1
        while end < count and _wide([widths[0], *widths[start : end + 1]]) <= width:
            end += 1
        parts.append([[row[0], *row[start:end]] for row in full])
        start = end
    return parts
