"""Writes the tables between `<!-- list KIND: begin -->` and `end` in docs/methods.md anew: `make tables`."""

import re
from pathlib import Path

from click.testing import CliRunner

from sparsebench.cli.list import command

PAGE = Path(__file__).parent / "methods.md"
BLOCK = re.compile(r"(<!-- list (\w+): begin -->\n).*?(\n<!-- list \2: end -->)", re.DOTALL)


def filled(page: str) -> str:
    """The page with its tables as `sparsebench list KIND --markdown` prints them now."""
    return BLOCK.sub(lambda found: found[1] + printed(found[2]) + found[3], page)


def printed(kind: str) -> str:
    """What the command prints."""
    return CliRunner().invoke(command, [kind, "--markdown"], catch_exceptions=False).output.strip()


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text()))
