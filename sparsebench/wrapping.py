"""Paragraphs as lines that fit a terminal."""

from __future__ import annotations

import re
import textwrap

WIDTH = 100
_SPACE = re.compile(r"[ \t\r\n]+")  # what may be broken at: not a no-break space


def wrap(text: str, width: int = WIDTH, indent: int = 2, hang: int = 4) -> list[str]:
    """A paragraph as lines of at most `width`, the first indented by `indent`, the others by `hang`."""
    return beside(" " * indent, text, hang, width)


def beside(label: str, text: str, hang: int, width: int = WIDTH) -> list[str]:
    """The same, its first line behind a label."""
    return textwrap.wrap(
        _SPACE.sub(" ", text.strip()),
        width,
        initial_indent=label,
        subsequent_indent=" " * hang,
        break_on_hyphens=False,
        break_long_words=False,  # a path or a command is only of use whole
    ) or [label.rstrip()]
