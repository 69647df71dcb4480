"""`sparsebench history`: one case over all runs of one machine, and where it got slower or faster for good."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

EPILOG = """\
\b
Examples:
  sparsebench history results --case linear-1024
  sparsebench history results --case linear-1024 --variant cython --json

A step is looked for in each series by permuting it: at most 5 % of series without one show one.

Next: sparsebench compare RUN-BEFORE RUN-AFTER
"""


@click.command("history", epilog=EPILOG)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--case", "case", required=True, metavar="NAME", help="The case, as the suite names it.")
@click.option("--variant", metavar="NAME", help="Only this variant; default: all but the baseline.")
@click.option("--json", "as_json", is_flag=True, help="The whole history as one JSON object.")
def command(folder: Path, case: str, variant: str | None, as_json: bool) -> None:
    """Show NAME over all runs below DIR: each variant's time against the baseline of its own blocks, and its steps.

    Only runs of the newest one's machine and version of the case are shown; the others are counted and named.
    """
    import msgspec

    from sparsebench.report._history import history_text
    from sparsebench.runs.history import history_of

    history = history_of(folder, case, variant)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(history), indent=2).decode())
        return
    click.echo(history_text(history), nl=False)
    shifted = history.shifted()
    if shifted:
        since = shifted[-1][1].since
        before, after = (shlex.quote(history.runs[i].path) for i in (max(since - 1, 0), since))
        click.echo(f"\nNext: sparsebench compare {before} {after}")
    else:
        click.echo(f"\nNext: sparsebench report {shlex.quote(history.runs[-1].path)}")
