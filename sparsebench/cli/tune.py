"""`sparsebench tune`: the fastest backend and plan for each layer on this machine, kept for later."""

from __future__ import annotations

import shlex
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from sparsebench.cli import tuned
from sparsebench.cli.exit_codes import exit_code_of_statuses
from sparsebench.errors import UsageError

if TYPE_CHECKING:
    from sparsebench.harness.crew import Limits
    from sparsebench.harness.outcomes import Outcome
    from sparsebench.harness.targets import Target, Wanted
    from sparsebench.registry import Registry

EPILOG = """\
\b
Examples:
  sparsebench tune resnet18-cifar --input 32x3x32x32          at 90 %, forward and backward
  sparsebench tune mlp --input 1x784 --pass forward --sparsity 0.95
  sparsebench tune linear:1024x4096 --input 64x4096           one layer, out x in
  sparsebench tune suite-cpu -k conv --backend cython         kernel cases of a suite, one backend
  sparsebench tune mine --input 8x3x64x64 --plugin mine.py    a ModelSpec of your own
  sparsebench tune --show                                     what is kept; --clear forgets it

\b
What is kept is used
  by backends that ask for their plan when they bind a weight: a run's rows say so in their note;
  by sparsebench.sparsify(model, backend="auto"), which then need not measure.
It holds for this kind of processor, for layers of the same shape, batch, dtype, threads and kind
of pattern, for about the same sparsity, and until the code of a backend changes. It lies in the
folder that SPARSEBENCH_PLANS names (set to nothing: none are used), else in your cache folder.

\b
Exit codes: 0 found, 3 a backend was wrong, 4 one failed; what is wrong or failed never wins.
Next: sparsebench run suite-smoke
"""
SAY_SECONDS = 20.0  # between lines of progress where there is no terminal


@click.command("tune", epilog=EPILOG)
@click.argument("target", required=False, metavar="[MODEL|LAYER|SUITE]")
@click.option("--input", "shape", metavar="SHAPE", help="Of one batch, as in 32x3x32x32 or 128x784.")
@click.option("--sparsity", "sparsities", multiple=True, type=click.FloatRange(0, 1, max_open=True), metavar="SHARE",
              help="Pruned share of every layer; may be given again.  [default: 0.9]")  # fmt: skip
@click.option(
    "--pattern", metavar="PATTERN", help="Where the weights are: row-skewed, block:8, nm:2:4.  [default: uniform]"
)
@click.option("--pass", "passes", type=click.Choice(["both", "forward"]), default="both", show_default=True,
              help="Forward and backward, to train; or forward alone.")  # fmt: skip
@click.option("--threads", type=click.IntRange(1), help="Of the process that is to use it.  [default: 1]")
@click.option("--backend", "backends", multiple=True, metavar="NAME", help="Only this backend beside the dense layer.")
@click.option("--plugin", "files", multiple=True, metavar="FILE", help="A Python file with a sparsebench hook.")
@click.option("-k", "expression", default="", metavar="EXPR", help="Of a suite: only cases that match.")
@click.option("--classes", type=click.IntRange(1), default=10, show_default=True, help="Outputs of the model.")
@click.option("--timeout", "seconds", type=click.FloatRange(min=0.1), help="Seconds a worker has for one answer.")
@click.option("--memory", "gib", type=click.FloatRange(min=0.1), metavar="GIB", help="Memory that a worker may take.")
@click.option("--no-save", is_flag=True, help="Print what is fastest, keep nothing.")
@click.option("--keep-noisy", is_flag=True, help="Keep also what was timed while something else had the core.")
@click.option("--show", is_flag=True, help="Print what is kept for this machine.")
@click.option("--clear", is_flag=True, help="Forget what is kept for this machine.")
@click.option("--json", "as_json", is_flag=True, help="One object, with every candidate of every layer.")
def command(target: str | None, show: bool, clear: bool, as_json: bool, **options: Any) -> int:
    """Find the fastest backend for each layer of MODEL on this machine, and the fastest plan of each
    backend (its tile, its layout: whatever it lets be chosen), and keep them.

    Every candidate runs in a process of its own; none is raced before its result was compared with a
    float64 oracle. What was found is kept layer by layer, so an interrupted tuning is not lost.
    """
    if (target is not None) + show + clear != 1:
        raise UsageError("tune needs a model, a layer as linear:OUTxIN, a suite, --show or --clear (one of them)")
    if show:
        click.echo(tuned.shown(as_json))
        return 0
    if clear:
        click.echo(tuned.cleared())
        return 0
    return _tune(str(target), as_json=as_json, **options)


def _tune(
    name: str,
    *,
    backends: tuple[str, ...],
    files: tuple[str, ...],
    seconds: float | None,
    gib: float | None,
    no_save: bool,
    keep_noisy: bool,
    as_json: bool,
    **wanted: Any,
) -> int:
    from sparsebench.cli.quarantine import say_quarantined
    from sparsebench.harness.crew import Limits
    from sparsebench.harness.session import import_seconds
    from sparsebench.harness.targets import find_target
    from sparsebench.plans import check_writable
    from sparsebench.registry import load_registry

    if not no_save:
        check_writable()
    limits = Limits(seconds, None if gib is None else int(gib * 2**30))
    registry = load_registry(files, import_seconds(limits))
    say_quarantined(registry)
    race = _Race(registry, backends, limits, keeps=not no_save, keeps_noise=keep_noisy)
    with _Progress(as_json) as progress:
        target = find_target(name, registry, _wanted(**wanted), limits)
        race.run(target, progress)
    kept = None if no_save else race.kept
    click.echo((tuned.as_json if as_json else tuned.as_text)(target, race.outcomes, kept))
    if race.interrupted:
        done = f"{len(race.outcomes)} of {len(target.cells)} problems were tuned, what is kept stays"
        click.echo(f"sparsebench: interrupted: {done}", err=True)
        return 130
    if not as_json:
        click.echo(f"\n{_next(target, backends, kept)}")
    return race.exit_code()


class _Race:
    """The race as the command line runs it: what is found is kept at once, and Ctrl-C ends it in order."""

    def __init__(
        self, registry: Registry, asked: tuple[str, ...], limits: Limits, *, keeps: bool, keeps_noise: bool
    ) -> None:
        """`asked`: the backends that were named, or none for all. Raises `UsageError` for one that nobody has."""
        self.registry, self.asked, self.limits = registry, asked, limits
        self.keeps, self.keeps_noise = keeps, keeps_noise
        self.backends = asked or _all(registry)
        self.outcomes: list[Outcome] = []
        self.kept: list[Outcome] = []
        self.interrupted = False
        for each in self.backends:
            registry.find("backends", each)

    def run(self, target: Target, progress: _Progress) -> None:
        """All problems of the target."""
        from sparsebench.harness import tuning
        from sparsebench.harness.outcomes import keep

        found = tuning.tune(target, self.registry, self.backends, self.limits, progress.tell, named=self.asked)
        try:
            for outcome in found:
                self.outcomes.append(outcome)
                if self.keeps and (self.keeps_noise or not outcome.noisy):
                    keep(outcome, datetime.now(UTC).isoformat(timespec="seconds"))
                    self.kept.append(outcome)
        except KeyboardInterrupt:
            self.interrupted = True

    def exit_code(self) -> int:
        """What the candidates make of it; those of optional peers are shown, and fail nothing."""
        peers = {each for each in self.backends if self.registry.find("backends", each)[0].spec.peer} - set(self.asked)
        found = [candidate for outcome in self.outcomes for candidate in (outcome.dense, *outcome.candidates)]
        return exit_code_of_statuses(each.status for each in found if each.backend not in peers)


def _wanted(*, shape: str | None, **rest: Any) -> Wanted:
    from sparsebench.harness.targets import Wanted, parse_shape

    return Wanted(shape=None if shape is None else parse_shape(shape), **rest)


def _all(registry: Registry) -> tuple[str, ...]:
    """What `sparsify` chooses from: every backend of precision float32 that can run here."""
    return tuple(
        name
        for name, entry in registry.backends.items()
        if entry.spec.precision == "float32" and entry.missing() is None
    )


def _next(target: Target, asked: tuple[str, ...], kept: list[Outcome] | None) -> str:
    """The command that makes use of what was found."""
    if kept is None:
        return "Next: the same without --no-save"
    if not kept:
        return "Next: sparsebench doctor says what disturbs"
    if all(cell.case.tags or cell.case.backends for cell in target.cells):
        only = "".join(f" --backend {shlex.quote(name)}" for name in asked)
        return f"Next: sparsebench run {shlex.quote(target.name)}{only}"
    threads = target.cells[0].threads
    return (
        f'Next: torch.set_num_threads({threads}); sparsebench.sparsify(model, example_input=x, backend="auto")\n'
        "      sparsebench tune --show"
    )


class _Progress:
    """How far the tuning is, on stderr: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, quiet: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self.live, self.said, self.quiet = sys.stderr.isatty(), time.monotonic(), quiet
        self.bar = Progress(
            TextColumn("{task.description:<52.52}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            console=Console(stderr=True), transient=True, disable=not self.live,
        )  # fmt: skip
        self.task = self.bar.add_task("looking at what there is to tune", total=None)

    def __enter__(self) -> _Progress:
        self.bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.bar.stop()

    def tell(self, what: str, done: int, total: int) -> None:
        """What is measured now."""
        self.bar.update(self.task, description=what, completed=done, total=total)
        if not self.live and not self.quiet and time.monotonic() - self.said > SAY_SECONDS:
            self.said = time.monotonic()
            click.echo(f"{done} of {total} problems tuned; now {what}", err=True)
