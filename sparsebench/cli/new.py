"""`sparsebench new`: a plugin to start from, whose generated tests pass as they are."""

from __future__ import annotations

from pathlib import Path

import click

from sparsebench.errors import UsageError, nearest

EPILOG = """\
\b
Examples:
  sparsebench new backend my-kernel
  sparsebench new backend my-kernel --folder src
  sparsebench new method my-method

Next: sparsebench check my-kernel
"""


@click.command("new", epilog=EPILOG)
@click.argument("kind", metavar="backend|method")
@click.argument("name")
@click.option("--folder", default=".", show_default=True, metavar="DIR", type=click.Path(path_type=Path),
              help="Where the package's folder is made.")  # fmt: skip
def command(kind: str, name: str, folder: Path) -> None:
    """Make a package with a plugin, its test and its README; the test passes as it is."""
    from sparsebench.testing.scaffold import KINDS, new_plugin

    if kind not in KINDS:
        raise UsageError(f"new {kind!r}: there is no such kind of plugin{nearest(kind, KINDS)}")
    made = new_plugin(kind, name, folder)
    click.echo(f"made {made}\n\nNext:\n  cd {made}\n  pip install -e '.[test]'\n  pytest\n"
               f"  sparsebench check {name}\n  sparsebench run suite-smoke --{kind} {name}")  # fmt: skip
