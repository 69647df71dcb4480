"""`sparsebench merge`: the shards of one plan become one run."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

EPILOG = """\
\b
Examples:
  sparsebench run suite-cpu --shard 1/2 --out one
  sparsebench run suite-cpu --shard 2/2 --out two
  sparsebench merge one two --out whole

Next: sparsebench report DIR
"""


@click.command("merge", epilog=EPILOG)
@click.argument("runs", nargs=-1, required=True, metavar="RUN…")
@click.option("--out", required=True, metavar="DIR", type=click.Path(path_type=Path), help="The folder of the new run.")
def command(runs: tuple[str, ...], out: Path) -> None:
    """Make one run of the shards RUN… of one suite, plan, machine and code; samples stay as measured.

    Shards that overlap or do not fit are refused, naming what differs. One that is missing is said, and its rows are
    not in the new run.
    """
    from sparsebench.cli.find import find_run
    from sparsebench.runs.merge import merge

    merged, notes = merge([find_run(text) for text in runs], out)
    for note in notes:
        click.echo(f"sparsebench: {note}", err=True)
    click.echo(f"{len(runs)} shards, {len(merged.info.cells)} cells, {len(merged.samples)} samples: {out}")
    click.echo(f"\nNext: sparsebench report {shlex.quote(str(out))}")
