"""`sparsebench ab`: two variants side by side, block for block, with verdicts."""

from __future__ import annotations

from pathlib import Path

import click
from click.core import ParameterSource

from sparsebench.cli.gate import fail_on_option, save_option, tell_github, write_files
from sparsebench.errors import UsageError
from sparsebench.report import DUEL_FORMATS
from sparsebench.runs.duel import EXIT_CODES, FAIL_ON

VERDICTS = tuple(verdict for verdict, _ in EXIT_CODES)
ENDINGS = {".md": "markdown", ".json": "json", ".txt": "table"}
EPILOG = """\
\b
Examples:
  sparsebench ab cython cpp -k linear-1024           two backends
  sparsebench ab cpp@isa=avx2 cpp@isa=base           two sets of options
  sparsebench ab cpp@threads=1 cpp@threads=2         two numbers of threads
  sparsebench ab main:my_kernel.py my_kernel.py      a plugin file as it was, and as it is
  sparsebench ab main:cpp cpp                        this project as it was, and as it is
  sparsebench ab main:my_kernel.py my_kernel.py --save ab.md --format github     in a CI job

\b
Exit codes: 0 nothing that --fail-on names; 3 wrong; 4 failed; 1 slower or
missing (A has the case and B does not); 5 inconclusive.

Next: sparsebench doctor --aa 20
"""


@click.command("ab", epilog=EPILOG)
@click.argument("a", required=False)
@click.argument("b", required=False)
@click.option("--suite", default="suite-cpu", show_default=True, help="Whose cells to measure.")
@click.option(
    "-k", "expression", default="", metavar="EXPR", help='Only what matches, as in "conv and not sparsity=0.99".'
)
@click.option("--threads", type=click.IntRange(1), help="Instead of what the suite says.")
@click.option(
    "--blocks",
    type=click.IntRange(1),
    help="At most so many good ones, where a verdict is looked for: 10, 15, 20 or 30.",
)
@click.option(
    "--resume", metavar="RUN", help="Go on with an interrupted ab: a folder, a beginning of its name, latest."
)
@fail_on_option(VERDICTS, FAIL_ON)
@click.option("--timeout", "seconds", type=click.FloatRange(min=0.1), help="Seconds a worker has for one answer.")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="The run folder itself.")
@save_option(ENDINGS)
@click.option("--format", "style", type=click.Choice(DUEL_FORMATS), default="table", show_default=True)
def command(
    a: str | None, b: str | None, suite: str, expression: str, threads: int | None, blocks: int | None,
    resume: str | None, fail_on: frozenset[str], seconds: float | None, out: Path | None,
    files: list[tuple[Path, str]], style: str,
) -> int:  # fmt: skip
    """Judge B against A on the cells of a suite: faster, slower, same or inconclusive.

    Both run in every block, in fresh processes on one core, in an order that is drawn anew each round. Blocks are
    looked at when there are 10, 15, 20 and 30; a cell that is decided is left alone.
    """
    from sparsebench.cli.find import find_run
    from sparsebench.cli.progress import Progress, interruptible, planning
    from sparsebench.cli.quarantine import say_quarantined
    from sparsebench.harness.crew import Limits
    from sparsebench.harness.duelling import DuelRunner, looks_within
    from sparsebench.harness.plan import Selection
    from sparsebench.harness.session import plan_duel, plan_duel_resume
    from sparsebench.report import render_duels
    from sparsebench.runs.duel import duels_of, worst
    from sparsebench.runs.store import read_run

    limits = Limits(seconds)
    with interruptible(), planning(style):
        if resume is not None:
            given = click.get_current_context().get_parameter_source("suite") is not ParameterSource.DEFAULT
            if a is not None or blocks or threads or expression or given or out:
                kept = "A, B, -k, --suite, --threads, --blocks and --out"
                raise UsageError(f"--resume goes on with what the ab began with; leave out {kept}")
            session = plan_duel_resume(find_run(resume), limits)
        elif a is None or b is None:
            raise UsageError("ab needs two things to compare, as in `sparsebench ab cython cpp`, or --resume RUN")
        else:
            selection = Selection(expression=expression, threads=threads, blocks=blocks)
            session = plan_duel(suite, a, b, selection, limits, out)
    say_quarantined(session.registry)
    interrupted = False
    with session.open() as writer:
        try:
            with interruptible(), Progress() as listener:
                looks = looks_within(session.options["selection"]["blocks"])
                DuelRunner(session.plan, writer, listener, session.limits, looks).run()
        except KeyboardInterrupt:
            interrupted = True
    duels = duels_of(read_run(writer.folder))
    write_files(files, lambda form: render_duels(duels, form))
    if style == "github":
        from sparsebench.report.github import duel_commands

        tell_github(render_duels(duels, style), duel_commands(duels, fail_on))
    else:
        click.echo(render_duels(duels, style), nl=False)
    again = f"ab --resume {writer.folder}" if interrupted else f"report {writer.folder}"
    click.echo(f"\nkept in {writer.folder}\nNext: sparsebench {again}", err=True)
    return 130 if interrupted else worst(duels, fail_on)
