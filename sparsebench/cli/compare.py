"""`sparsebench compare`: what got slower between two runs, and the exit code that a CI job acts on."""

from __future__ import annotations

import click

from sparsebench.cli.find import find_run
from sparsebench.errors import UsageError, nearest
from sparsebench.report import COMPARISON_FORMATS, render_comparison
from sparsebench.runs.compare import EXIT_CODES, FAIL_ON, compare_runs
from sparsebench.runs.store import read_run

VERDICTS = tuple(verdict for verdict, _ in EXIT_CODES)
DEFAULT = ",".join(verdict for verdict in VERDICTS if verdict in FAIL_ON)
EPILOG = """\
\b
Examples:
  sparsebench compare results-of-main results-of-branch
  sparsebench compare BASE latest --margin 5% --fail-on slower,wrong
  sparsebench compare BASE latest --fail-on none --format markdown

\b
Exit codes: 0 nothing that --fail-on names; 3 wrong; 4 failed; 1 slower or missing;
5 inconclusive; 2 a run cannot be read. Verdicts need 10 blocks a side; with 5, only a
slowdown of more than three margins is called.

Next: sparsebench run suite-cpu --blocks 10
"""


def _margin(_ctx: click.Context, _param: click.Parameter, text: str | None) -> float | None:
    """0.03 of '3%' or '0.03'."""
    if text is None:
        return None
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise UsageError(f"--margin {text}: write a share between 0 and 1, as 3% or 0.03")
    return value


def _fail_on(_ctx: click.Context, _param: click.Parameter, text: str) -> frozenset[str]:
    """The verdicts in 'slower,wrong'; none in 'none'."""
    names = [] if text == "none" else [name.strip() for name in text.split(",")]
    for name in names:
        if name not in VERDICTS:
            raise UsageError(f"--fail-on {name!r} is not a verdict{nearest(name, (*VERDICTS, 'none'))}")
    return frozenset(names)


@click.command("compare", epilog=EPILOG)
@click.argument("base")
@click.argument("head")
@click.option("--margin", callback=_margin, metavar="3%", help="The change that matters; default: each case's own.")
@click.option(
    "--fail-on", callback=_fail_on, default=DEFAULT, show_default=True, metavar="VERDICTS",
    help=f"Of {', '.join(VERDICTS)}; or none.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Judge times although the two machines differ.")
@click.option(
    "--format", "form", default="table", show_default=True, type=click.Choice(COMPARISON_FORMATS),
    help="How to show it.",
)  # fmt: skip
def command(base: str, head: str, margin: float | None, fail_on: frozenset[str], force: bool, form: str) -> int:
    """Judge the run HEAD against the run BASE: faster, slower, same or inconclusive, for every row.

    BASE and HEAD are folders of runs, the beginnings of their names or ids, or `latest`. Every time is first divided
    by the baseline's time in its own block; so the baseline itself is not judged. Times of two machines are shown
    side by side, not judged; what is wrong, failed or missing is so on any machine.
    """
    runs = [read_run(find_run(text)) for text in (base, head)]
    comparison = compare_runs(*runs, margin=margin, force=force)
    click.echo(render_comparison(comparison, form), nl=False)
    return comparison.exit_code(fail_on)
