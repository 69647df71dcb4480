"""`sparsebench report`: a finished run again, as tables or in another format."""

from __future__ import annotations

import shlex

import click

from sparsebench.cli.find import find_run
from sparsebench.errors import UsageError
from sparsebench.formats import export
from sparsebench.formats import formats as foreign_formats
from sparsebench.report import DUEL_FORMATS, render, render_duels
from sparsebench.report import formats as report_formats
from sparsebench.runs.duel import duels_of
from sparsebench.runs.records import RunInfo
from sparsebench.runs.store import Run, read_run
from sparsebench.runs.summary import summarize
from sparsebench.timing import without_gc

FOR_PEOPLE = ("table", "markdown")  # these may follow one another; the others are one document each
EPILOG = """\
\b
Examples:
  sparsebench report latest
  sparsebench report latest --format markdown > results.md
  sparsebench report suite-cpu-2026 --format csv > results.csv
  sparsebench report latest --format html > results.html
  sparsebench report latest --format pyperf > run.json && pyperf stats run.json
  sparsebench report latest --format pytest-benchmark > mine.json

Next: sparsebench compare BASE HEAD
"""


@click.command("report", epilog=EPILOG)
@click.argument("runs", nargs=-1, required=True, metavar="RUN…")
@click.option(
    "--format", "form", default="table", show_default=True,
    type=click.Choice([*report_formats(), *foreign_formats()]), help="How to show it.",
)  # fmt: skip
def command(runs: tuple[str, ...], form: str) -> None:
    """Print finished runs again: as tables for a terminal, or in another format.

    RUN is a run's folder, the beginning of its name or id, or `latest`.
    """
    if len(runs) > 1 and form not in FOR_PEOPLE:
        raise UsageError(f"--format {form} is one document: give one run, not {len(runs)}")
    texts, paths = [], []
    with without_gc():  # 150,000 records that live to the end
        for each in runs:
            run = read_run(find_run(each))
            texts.append(_text(run, form))
            if not _is_duel(run.info):  # which is judged already
                paths.append(str(run.path))
            del run  # of several runs one at a time is in memory
    click.echo("\n".join(texts), nl=False)
    if form == "table":
        compare = f"compare BASE {shlex.quote(paths[-1])}" if paths else "doctor --aa 20"
        click.echo(f"\nNext: sparsebench {compare}", err=True)


def _is_duel(info: RunInfo) -> bool:
    return "ab" in info.options


def _text(run: Run, form: str) -> str:
    if _is_duel(run.info) and form in DUEL_FORMATS:
        return render_duels(duels_of(run), form)
    return export(run, form) if form in foreign_formats() else render(summarize(run), form)
