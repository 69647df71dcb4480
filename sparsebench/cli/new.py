"""`sparsebench new`: a plugin to start from, whose generated tests pass as they are."""

from __future__ import annotations

from pathlib import Path

import click

from sparsebench.errors import UsageError, nearest

KINDS = ("backend",)
EPILOG = """\
\b
Examples:
  sparsebench new backend my-kernel
  sparsebench new backend my-kernel --folder src

Next: sparsebench check my-kernel
"""


@click.command("new", epilog=EPILOG)
@click.argument("kind", metavar="backend")
@click.argument("name")
@click.option("--folder", default=".", show_default=True, metavar="DIR", type=click.Path(path_type=Path),
              help="Where the package's folder is made.")  # fmt: skip
def command(kind: str, name: str, folder: Path) -> None:
    """Make a package with a plugin, its test and its README; the test passes as it is."""
    if kind not in KINDS:
        raise UsageError(f"new {kind!r}: there is no such kind of plugin{nearest(kind, KINDS)}")
    from sparsebench.testing.scaffold import new_backend

    made = new_backend(name, folder)
    click.echo(f"made {made}\n\nNext:\n  cd {made}\n  pip install -e .\n  pytest\n"
               f"  sparsebench check {name}\n  sparsebench run suite-smoke --backend {name}")  # fmt: skip
