"""`sparsebench compare`: what got slower between two runs, and the exit code that a CI job acts on."""

from __future__ import annotations

import shlex
from pathlib import Path

import click
import msgspec

from sparsebench.cli.find import find_run
from sparsebench.cli.gate import fail_on_option, save_option, tell_github, write_files
from sparsebench.errors import UsageError, nearest
from sparsebench.report import COMPARISON_FORMATS, render_comparison
from sparsebench.runs.compare import EXIT_CODES, FAIL_ON, Comparison, Margins, compare_runs
from sparsebench.runs.sides import digests_of, renamed
from sparsebench.timing import without_gc

VERDICTS = tuple(verdict for verdict, _ in EXIT_CODES)
ENDINGS = {".md": "markdown", ".json": "json", ".html": "html", ".tex": "latex", ".txt": "table"}
EPILOG = """\
\b
Examples:
  sparsebench compare results-of-main results-of-branch
  sparsebench compare BASE latest --margin 5% --fail-on slower,wrong
  sparsebench compare BASE latest --margin 3% --margin noisy=10% --save verdicts.json
  sparsebench compare BASE latest --format github      in a workflow: summary, annotations
  sparsebench compare before.json after.json           two files of pytest-benchmark

\b
Exit codes: 0 nothing that --fail-on names; 3 wrong; 4 failed; 1 slower or missing;
5 inconclusive; 2 a run cannot be read. Verdicts need 10 blocks a side; with 5, only a
slowdown of more than three margins is called.

Next: sparsebench run suite-cpu --blocks 15
"""


def _margins(_ctx: click.Context, _param: click.Parameter, texts: tuple[str, ...]) -> Margins:
    """The margins of "3%", "linear-1024=5%", "noisy=10%"."""
    everywhere, named = None, {}
    for text in texts:
        name, equals, share = text.rpartition("=")
        if equals:
            named[name] = _share(text, share)
        else:
            everywhere = _share(text, text)
    return Margins(everywhere=everywhere, named=named)


def _share(given: str, text: str) -> float:
    """0.03 of "3%" or "0.03"."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise UsageError(f"--margin {given}: write a share between 0 and 1, as 3% or 0.03, or NAME=3%")
    return value


def _names(_ctx: click.Context, _param: click.Parameter, texts: tuple[str, ...]) -> dict[str, str]:
    """Old name -> new name of "cython=cython2"; an option of a name keeps its own "="."""
    names: dict[str, str] = {}
    for text in texts:
        old, equals, new = text.partition("=")
        if not (old and equals and new):
            raise UsageError(f"--rename {text}: write OLD=NEW, as in --rename cython=cython2")
        if names.setdefault(old, new) != new:
            raise UsageError(f"--rename {text}: {old} is renamed to {names[old]} as well; give it one name")
    return names


@click.command("compare", epilog=EPILOG)
@click.argument("base")
@click.argument("head")
@click.option(
    "--margin", "margins", multiple=True, callback=_margins, metavar="[NAME=]3%",
    help="The change that matters, of a case or tag NAME or of all; default: each case's own.",
)  # fmt: skip
@fail_on_option(VERDICTS, FAIL_ON)
@click.option("--force", is_flag=True, help="Judge times although machines or versions of a case differ.")
@click.option(
    "--rename", "names", multiple=True, callback=_names, metavar="OLD=NEW", help="A variant of BASE, now NEW."
)
@save_option(ENDINGS)
@click.option(
    "--format", "form", default="table", show_default=True, type=click.Choice(COMPARISON_FORMATS),
    help="How to show it.",
)  # fmt: skip
def command(
    base: str,
    head: str,
    margins: Margins,
    fail_on: frozenset[str],
    force: bool,
    names: dict[str, str],
    files: list[tuple[Path, str]],
    form: str,
) -> int:
    """Judge the run HEAD against the run BASE: faster, slower, same or inconclusive, for every row.

    BASE and HEAD are folders of runs, the beginnings of their names or ids, or `latest`. Every time is first divided
    by the baseline's time in its own block; so the baseline itself is not judged. Times of two machines are shown
    side by side, not judged; what is wrong, failed or missing is so on any machine. Two files of pytest-benchmark can
    be given as well: no time of theirs is judged.
    """
    comparison = _compared(base, head, margins, force, names)
    write_files(files, lambda known: render_comparison(comparison, known))
    if form == "github":
        from sparsebench.report.github import workflow_commands

        tell_github(render_comparison(comparison, form), workflow_commands(comparison, fail_on))
    else:
        click.echo(render_comparison(comparison, form), nl=False)
    if form == "table":
        click.echo(f"\nNext: {_next(comparison)}", err=True)
    return comparison.exit_code(fail_on)


def _next(comparison: Comparison) -> str:
    """The new run in full; where time could not be judged, the command that judges it on one machine in one go."""
    unclear = {"inconclusive", "not judged"} & comparison.counts().keys()
    if unclear or not comparison.anchored:
        return "sparsebench ab A B, side by side: what other work spoils is made up for"
    return f"sparsebench report {shlex.quote(comparison.head_path)}"


def _compared(base: str, head: str, margins: Margins, force: bool, names: dict[str, str]) -> Comparison:
    from sparsebench.formats import pytest_benchmark

    foreign = [text for text in (base, head) if pytest_benchmark.is_file(Path(text))]
    if len(foreign) == 1:
        raise UsageError(f"{foreign[0]} is a file of pytest-benchmark and the other is a run: give two of one kind")
    if foreign and (names or margins.named):
        raise UsageError("--rename and --margin NAME=… are of variants and cases, which files of pytest-benchmark lack")
    if foreign:
        return pytest_benchmark.compare(Path(base), Path(head))
    with without_gc():  # records that live to the end: looking for garbage among them takes a third of the time
        digests = digests_of([find_run(base), find_run(head)])
        known = {name for run in digests for cell in run.info.cells for name in (cell.case, *cell.tags)}
        for name in margins.unknown(*(run.info for run in digests)):
            raise UsageError(f"--margin {name}=…: neither a case nor a tag of these runs{nearest(name, known)}")
        variants = {variant for cell in digests[0].info.cells for variant in cell.variants}
        for name in names.keys() - variants:
            raise UsageError(f"--rename {name}=…: {base} has no such variant{nearest(name, variants)}")
        made = compare_runs(renamed(digests[0], names), digests[1], margin=margins, force=force)
        notes = (*(f"renamed: {old} of base is compared as {new}" for old, new in names.items()), *made.notes)
        return msgspec.structs.replace(made, notes=notes)
