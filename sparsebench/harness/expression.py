"""What stands behind -k: "conv and not 0.99", "(linear or conv) and threads=2", as one question to a cell."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from sparsebench.errors import UsageError, nearest
from sparsebench.harness.cells import Cell

Holds = Callable[[str], bool]  # whether a cell has a word
Question = Callable[[Holds], bool]
_TOKENS = re.compile(r"[()]|[^\s()]+")
_OPERATORS = frozenset({"and", "or", "not", "(", ")"})


def matches(expression: str, cell: Cell) -> bool:
    """Whether a cell is meant: words are looked for in the case's name, kind, tags and values.

    A word with "=" is an axis and its whole value, "threads=1", which 16 threads are not; without it any part of a text
    will do, and the names of axes, which all cells share, say nothing. `not` binds most, then `and`, then `or`. Raises
    `UsageError` for what cannot be read.
    """
    if not expression.strip():
        return True
    text = " ".join([cell.case.name, cell.kind, *cell.case.tags, *map(str, cell.axes.values())])
    return _Reader(expression).read()(lambda word: _has(cell, word) if "=" in word else word in text)


def _has(cell: Cell, word: str) -> bool:
    """Whether an axis has that very value, "sparsity=0.9"; what stands behind the first "=" may hold another."""
    axis, _, text = word.partition("=")
    return axis in cell.axes and _is(cell.axes[axis], text)


def _is(value: object, text: str) -> bool:
    """Whether the text is how the value is written: forward, true, 3x3; a number in any way, 2 for 2.0, 1e-3."""
    if isinstance(value, list | tuple):
        return text == "x".join(map(str, value))
    if isinstance(value, bool):
        return text.lower() == str(value).lower()
    if not isinstance(value, int | float):
        return text == str(value)
    try:
        return float(text) == value
    except ValueError:
        return False


def why_none(expression: str, cells: Iterable[Cell]) -> str:
    """For an error, "; sparsity is here 0.9, 0.95": of each AXIS=VALUE that no cell has, what there is; or nothing."""
    values: dict[str, list[object]] = {}
    for cell in cells:
        for axis, value in cell.axes.items():
            if value not in values.setdefault(axis, []):
                values[axis].append(value)
    told = ""
    for word in _TOKENS.findall(expression):
        axis, equals, text = word.partition("=")
        if equals and axis not in values:
            told += f"; no axis is called {axis!r}{nearest(axis, values)}"
        elif equals and not any(_is(value, text) for value in values[axis]):
            told += f"; {axis} is here {', '.join(map(str, values[axis]))}"
    return told


class _Reader:
    """Recursive descent over the tokens of an expression."""

    def __init__(self, expression: str) -> None:
        self.expression, self.tokens = expression, _TOKENS.findall(expression)

    def read(self) -> Question:
        made = self._either()
        if self.tokens:
            raise self._fault(f"{self.tokens[0]!r} is too much")
        return made

    def _either(self) -> Question:
        found = [self._both()]
        while self._take("or"):
            found.append(self._both())
        return lambda holds: any(each(holds) for each in found)

    def _both(self) -> Question:
        found = [self._one()]
        while self._take("and"):
            found.append(self._one())
        return lambda holds: all(each(holds) for each in found)

    def _one(self) -> Question:
        if self._take("not"):
            inner = self._one()
            return lambda holds: not inner(holds)
        if self._take("("):
            inner = self._either()
            if not self._take(")"):
                raise self._fault("a ) is missing")
            return inner
        words = []
        while self.tokens and self.tokens[0] not in _OPERATORS:
            words.append(self.tokens.pop(0))
        if not words:
            raise self._fault(f"a word is missing before {self.tokens[0]!r}" if self.tokens else "it ends too early")
        word = " ".join(words)
        return lambda holds: holds(word)

    def _take(self, token: str) -> bool:
        if self.tokens[:1] == [token]:
            self.tokens.pop(0)
            return True
        return False

    def _fault(self, what: str) -> UsageError:
        return UsageError(f"-k {self.expression!r}: {what}; write words with and, or, not and parentheses between them")
