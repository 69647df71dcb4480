"""`sparsebench run`: plan, verify, time, and print who wins."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sparsebench.cli.exit_codes import exit_code_of_statuses
from sparsebench.cli.progress import Progress, interruptible, planning
from sparsebench.errors import UsageError

if TYPE_CHECKING:
    from sparsebench.harness.session import Session
    from sparsebench.registry import Registry
    from sparsebench.runs.records import Sample

EPILOG = """\
\b
Examples:
  sparsebench run suite-smoke                          every part once, under a minute
  sparsebench run suite-cpu --dry-run                  what would run, and why not
  sparsebench run suite-cpu -k "conv and not 0.99"     some cases
  sparsebench run suite-smoke --plugin my_kernel.py    your kernel beside the others
  sparsebench run --resume results/suite-cpu-…         go on where a run was stopped

Next: sparsebench report latest --format markdown
"""
PLUGIN_LEFT_OUT = 4  # of a --plugin FILE: the run goes on without it, and has failed
FORMATS = ("table", "markdown", "json")
SELECTING = (
    "expression",
    "backends",
    "methods",
    "files",
    "threads",
    "blocks",
    "seed",
    "quick",
    "shard",
    "out",
    "keep_models",
)


@click.command("run", epilog=EPILOG)
@click.argument("suite", required=False)
@click.option(
    "-k", "expression", default="", metavar="EXPR", help='Only what matches, as in "conv and not sparsity=0.99".'
)
@click.option("--backend", "backends", multiple=True, metavar="NAME", help="Only this backend beside the baseline.")
@click.option("--method", "methods", multiple=True, metavar="NAME", help="Only this pruning method beside `dense`.")
@click.option("--plugin", "files", multiple=True, metavar="FILE", help="A Python file with a sparsebench hook.")
@click.option("--threads", type=click.IntRange(1), help="Instead of what the suite says.")
@click.option("--blocks", type=click.IntRange(1), help="Blocks of fresh workers, instead of what the suite says.")
@click.option("--seed", type=int, help="Seed of weights, inputs and masks.")
@click.option("--quick", is_flag=True, help="One block (or --blocks), three rounds, the first value of every list.")
@click.option("--dry-run", is_flag=True, help="List every row with what it would run, or why not.")
@click.option("--resume", metavar="RUN", help="Go on with an interrupted run.")
@click.option("--shard", metavar="I/N", callback=lambda *a: _shard(a[2]), help="The I-th of N parts of the cells.")
@click.option("--timeout", "seconds", type=click.FloatRange(min=0.1), help="Seconds a worker has for one answer.")
@click.option("--memory", "gib", type=click.FloatRange(min=0.1), metavar="GIB", help="Memory that a worker may take.")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="The run folder itself.")
@click.option("--keep-models", is_flag=True, help="Leave the models of trainings in the run folder, dense and as CSR.")
@click.option("--download", is_flag=True, help="Let data sets that are not here be downloaded (checksummed).")
@click.option("--format", "style", type=click.Choice(FORMATS), default="table", show_default=True)
def command(
    suite: str | None,
    resume: str | None,
    expression: str,
    backends: tuple[str, ...],
    files: tuple[str, ...],
    dry_run: bool,
    seconds: float | None,
    gib: float | None,
    out: Path | None,
    keep_models: bool,
    download: bool,
    style: str,
    **rest: Any,
) -> int:
    """Verify and time every backend of SUITE (a name, or a .toml file), and print who wins.

    Each kernel is proven right before it is timed; each row ends with a time, or with the reason why it has none.
    Results are kept as they come: an interrupted run goes on with --resume.
    """
    import os

    from sparsebench.cli.quarantine import say_quarantined
    from sparsebench.harness.crew import Limits
    from sparsebench.harness.plan import Selection
    from sparsebench.harness.session import plan_resume, plan_run

    if (suite is None) == (resume is None):
        raise UsageError("run needs a suite or --resume RUN (not both); see `sparsebench list suites`")
    if resume is not None and (given := [p.opts[0] for name, p in _given().items() if name in SELECTING]):
        raise UsageError(f"--resume goes on with what the run began with; leave out {' and '.join(given)}")
    if download:
        os.environ["SPARSEBENCH_DOWNLOAD"] = "1"  # the workers that load data sets inherit it
    limits = Limits(seconds, None if gib is None else int(gib * 2**30))
    with interruptible(), planning(style):
        if resume is not None:
            from sparsebench.cli.find import find_run

            session = plan_resume(find_run(resume), limits)
        else:
            selection = Selection(backends=backends, expression=expression, **rest)
            session = plan_run(str(suite), selection, files=files, limits=limits, out=out,
                               keep_models=keep_models)  # fmt: skip
    say_quarantined(session.registry)
    if dry_run:
        from sparsebench.cli.dry_run import render

        click.echo(render(session.plan, _again()))
        return 0
    return _run(session, style)


def _run(session: Session, style: str) -> int:
    from sparsebench.harness.runner import Runner
    from sparsebench.runs.store import read_run

    interrupted = False
    with session.open() as writer:
        for problem in writer.problems:
            click.echo(f"sparsebench: {problem}", err=True)
        try:
            with interruptible(), Progress() as progress:
                runner = Runner(session.plan, writer, progress, session.limits)
                runner.run()
            click.echo(_where_time_went(runner.spent), err=True)
        except KeyboardInterrupt:
            interrupted = True
    run = read_run(writer.folder)
    _report(run, session, style, interrupted)
    if interrupted:
        return 130
    return _exit_code(run.samples, session.plan.peers()) or (PLUGIN_LEFT_OUT if _left_out(session) else 0)


def _where_time_went(spent: Mapping[str, int]) -> str:
    """ "took 7.2 min: 61 % in samples, 14 % in kernels that were proven right, 25 % around them"."""
    wall = max(1, spent["wall_ns"])
    timed, checked = (100 * spent[what] / wall for what in ("timed_ns", "checked_ns"))
    told = (
        f"{timed:.0f} % timing, {checked:.0f} % binding and verifying kernels, {100 - timed - checked:.0f} % the rest"
    )
    return f"took {wall / 60e9:.1f} min: {told}"


def _report(run: Any, session: Session, style: str, interrupted: bool) -> None:
    from sparsebench import report
    from sparsebench.runs.summary import summarize

    summary, folder = summarize(run), run.path
    (folder / "report.md").write_text(report.render(summary, "markdown"))
    click.echo(report.render(summary, style))
    if interrupted:
        click.echo(f"Interrupted; go on with: sparsebench run --resume {folder}", err=True)
    if style == "json":
        return
    click.echo(f"\nResults: {folder}")
    wrong = [row.variant for row in summary.rows if row.status == "wrong"]
    if wrong:
        click.echo(f"Next: sparsebench check {shlex.quote(_source_of(wrong[0], session.registry))}")
    elif not interrupted:
        click.echo(f"Next: sparsebench report {folder} --format markdown")
        click.echo(f"      sparsebench compare BASE {folder}")


def _source_of(variant: str, registry: Registry) -> str:
    """What `check` takes for a variant: the plugin file it came from, else its name."""
    name = variant.partition("@")[0]
    entry = registry.backends.get(name) or registry.methods.get(name)
    return (entry.source.file if entry else None) or name


def _left_out(session: Session) -> bool:
    """Whether a plugin file that was named on the command line could not be used."""
    files = set(session.options["files"])
    return any(info.error and info.name in files for info in session.registry.plugins)


def _exit_code(samples: Sequence[Sample], peers: set[str]) -> int:
    """What the rows make of it; those of optional peers are shown, and fail nothing."""
    return exit_code_of_statuses(s.status for s in samples if s.variant not in peers)


def _given() -> dict[str, click.Parameter]:
    """The parameters that stand on the command line."""
    context = click.get_current_context()
    there = click.core.ParameterSource.COMMANDLINE
    named = {str(p.name): p for p in context.command.params}
    return {name: p for name, p in named.items() if context.get_parameter_source(name) is there}


def _again() -> str:
    """The arguments as they were given, without --dry-run."""
    words: list[str] = []
    for name, parameter in _given().items():
        value = click.get_current_context().params[name]
        if isinstance(parameter, click.Argument):
            words.append(value)
        elif name == "shard":
            words += [parameter.opts[0], "/".join(map(str, value))]
        elif value is True:
            words += [parameter.opts[0]] if name != "dry_run" else []
        else:
            texts = value if parameter.multiple else [f"{value:g}" if isinstance(value, float) else str(value)]
            words += [word for text in texts for word in (parameter.opts[0], text)]
    return shlex.join(words)


def _shard(text: str | None) -> tuple[int, int]:
    if not text:
        return (1, 1)
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise UsageError(f"--shard {text}: write I/N with 1 <= I <= N, as in --shard 1/4")
    return (int(index), int(count))
