"""`sparsebench ab`: two variants side by side, block for block, with verdicts."""

from __future__ import annotations

from pathlib import Path

import click

from sparsebench.errors import UsageError, nearest

VERDICTS = ("wrong", "failed", "slower", "inconclusive")
EPILOG = """\
\b
Examples:
  sparsebench ab cython cpp -k linear-1024           two backends
  sparsebench ab cpp@isa=avx2 cpp@isa=base           two sets of options
  sparsebench ab cpp@threads=1 cpp@threads=2         two numbers of threads
  sparsebench ab main:my_kernel.py my_kernel.py      a plugin file as it was, and as it is
  sparsebench ab main:cpp cpp                        this project as it was, and as it is

\b
Exit codes: 0 nothing that --fail-on names; 3 wrong; 4 failed; 1 slower; 5 inconclusive.

Next: sparsebench doctor --aa 20
"""


def _fail_on(_ctx: click.Context, _param: click.Parameter, text: str) -> frozenset[str]:
    names = [] if text == "none" else [name.strip() for name in text.split(",")]
    for name in names:
        if name not in VERDICTS:
            raise UsageError(f"--fail-on {name!r} is not a verdict of ab{nearest(name, (*VERDICTS, 'none'))}")
    return frozenset(names)


@click.command("ab", epilog=EPILOG)
@click.argument("a")
@click.argument("b")
@click.option("--suite", default="suite-cpu", show_default=True, help="Whose cells to measure.")
@click.option("-k", "expression", default="", metavar="EXPR", help="Only cases whose name, tags or values match.")
@click.option("--threads", type=click.IntRange(1), help="Instead of what the suite says.")
@click.option("--blocks", type=click.IntRange(1), help="At most so many; a verdict needs 10.")
@click.option(
    "--fail-on", callback=_fail_on, default="wrong,failed,slower", show_default=True, metavar="VERDICTS",
    help=f"Of {', '.join(VERDICTS)}; or none.",
)  # fmt: skip
@click.option("--timeout", "seconds", type=click.FloatRange(min=0.1), help="Seconds a worker has for one answer.")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="The run folder itself.")
@click.option("--format", "style", type=click.Choice(("table", "markdown", "json")), default="table", show_default=True)
def command(
    a: str, b: str, suite: str, expression: str, threads: int | None, blocks: int | None, fail_on: frozenset[str],
    seconds: float | None, out: Path | None, style: str,
) -> int:  # fmt: skip
    """Judge B against A on the cells of a suite: faster, slower, same or inconclusive.

    Both run in every block, in fresh processes on one core, in an order that is drawn anew each round. Blocks are
    looked at when there are 10, 15, 20 and 30; a cell that is decided is left alone.
    """
    from sparsebench.cli.progress import Progress, interruptible, planning
    from sparsebench.cli.quarantine import say_quarantined
    from sparsebench.harness.crew import Limits
    from sparsebench.harness.duelling import DuelRunner
    from sparsebench.harness.plan import Selection
    from sparsebench.harness.session import plan_duel
    from sparsebench.report import render_duels
    from sparsebench.runs.duel import duels_of, worst
    from sparsebench.runs.store import read_run

    selection = Selection(expression=expression, threads=threads, blocks=blocks)
    with interruptible(), planning(style):
        session = plan_duel(suite, a, b, selection, Limits(seconds), out)
    say_quarantined(session.registry)
    interrupted = False
    with session.open() as writer:
        try:
            with interruptible(), Progress() as listener:
                DuelRunner(session.plan, writer, listener, session.limits).run()
        except KeyboardInterrupt:
            interrupted = True
    run = read_run(writer.folder)
    duels = duels_of(run)
    click.echo(render_duels(duels, style), nl=False)
    click.echo(f"\nkept in {writer.folder}\nNext: sparsebench report {writer.folder} --format markdown", err=True)
    return 130 if interrupted else worst(duels, fail_on)
