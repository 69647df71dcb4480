"""`sparsebench check`: is it right? Verification without timing."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sparsebench.cli.exit_codes import FAILING, exit_code_of_statuses
from sparsebench.errors import UsageError, nearest
from sparsebench.wrapping import wrap

if TYPE_CHECKING:
    from sparsebench.harness.checking import Checked, Tell
    from sparsebench.harness.crew import Limits

EPILOG = """\
\b
Examples:
  sparsebench check cython            one backend over the whole grid
  sparsebench check gmp               one pruning method, in small trainings
  sparsebench check my_plugin.py      every backend and method of a plugin file
  sparsebench check suite-cpu         every row of a suite, on its own inputs
  sparsebench check --all             every backend and method that is installed

Exit codes: 0 right or honestly unsupported, 3 wrong, 4 raised, crashed, hung or out of memory.
Next: sparsebench run suite-smoke --backend NAME
"""
SHOWN = 12  # failures of one backend that are shown one by one


@click.command("check", epilog=EPILOG)
@click.argument("target", required=False, metavar="[BACKEND|METHOD|FILE.py|SUITE]")
@click.option("--all", "everything", is_flag=True, help="Every installed backend and method.")
@click.option("--timeout", "seconds", type=click.FloatRange(min=0.1), help="Seconds a worker has for one check.")
@click.option("--memory", "gib", type=click.FloatRange(min=0.1), metavar="GIB", help="Memory that a worker may take.")
@click.option("-v", "--verbose", is_flag=True, help="Show every check, also those that are right.")
def command(target: str | None, everything: bool, seconds: float | None, gib: float | None, verbose: bool) -> int:
    """Verify kernels against a float64 oracle, and methods against the host's rules, without timing them.

    A backend is checked over a grid: odd and unaligned sizes, batch 1, empty rows, empty and full weights, explicit
    zeros, strided and expanded inputs, non-finite inputs, new values, alternating shapes, one thread and two.
    A method trains small models under a host that looks after every event: over optimizers, budgets, N:M groups, an
    excluded layer, kernels, the same seed twice, an interrupted training. A suite is checked on its own inputs.
    """
    if (target is None) == (not everything):
        raise UsageError(
            "check needs a backend, a method, a plugin file, a suite or --all; see `sparsebench list backends`"
        )
    from sparsebench.harness.crew import Limits

    with _Progress() as progress:
        checked = list(_checked(target, Limits(seconds, None if gib is None else int(gib * 2**30)), progress.tell))
    click.echo(_table(checked))
    for line in _details(checked, verbose):
        click.echo("\n".join(wrap(line)))
    code = exit_code_of_statuses(c.status for c in checked)
    again = f"mend it, then: sparsebench check {shlex.quote(target) if target else '--all'}"
    timed = f"sparsebench run {_run_of(target, is_method=checked[0].kind == 'method')}"
    click.echo(f"\nNext: {again if code else timed}")
    return code


def _run_of(target: str | None, is_method: bool) -> str:
    """The arguments with which `sparsebench run` times what was checked."""
    if target is None:
        return "suite-smoke"
    if _is_suite(target):
        return shlex.quote(target)
    if target.endswith(".py"):
        return f"suite-smoke --plugin {shlex.quote(target)}"
    return f"suite-smoke --{'method' if is_method else 'backend'} {shlex.quote(target)}"


def _is_suite(target: str) -> bool:
    from sparsebench.harness.suite import suite_names

    return target in suite_names() or target.endswith(".toml")


def _checked(target: str | None, limits: Limits, tell: Tell) -> Iterator[Checked]:
    from sparsebench.cli.quarantine import say_quarantined
    from sparsebench.errors import PluginError
    from sparsebench.harness.checking import check_backends, check_methods, check_plan
    from sparsebench.harness.plan import Selection
    from sparsebench.harness.session import import_seconds, plan_run
    from sparsebench.harness.suite import suite_names
    from sparsebench.registry import load_registry

    if target and _is_suite(target):
        session = plan_run(target, Selection(), limits=limits)
        say_quarantined(session.registry)
        yield from check_plan(session.plan, tell, limits)
        return
    if target and target.endswith(".py"):
        file = str(Path(target).resolve())
        registry = load_registry([file], import_seconds(limits))
        broken = [p.error for p in registry.plugins if p.name == file and p.error]
        if broken:
            raise PluginError(f"{target} cannot be used: {broken[0]}")
        backends, methods = (
            [name for name, entry in table.items() if entry.source.file == file]
            for table in (registry.backends, registry.methods)
        )
        if not backends and not methods:
            raise UsageError(
                f"{target} offers no backend and no method; return BackendSpec records from sparsebench_backends() "
                "or MethodSpec records from sparsebench_methods()"
            )
    else:
        registry = load_registry(seconds=import_seconds(limits))
        backends, methods = list(registry.backends), list(registry.methods)
        if target:
            base = target.partition("@")[0]
            backends = [target] if base in registry.backends else []
            methods = [target] if base in registry.methods else []
            if not backends and not methods:
                known = [*registry.backends, *registry.methods, *suite_names()]
                raise UsageError(f"nothing to check is named {target!r}{nearest(target, known)}")
    say_quarantined(registry)
    if backends:
        yield from check_backends(backends, registry, tell, limits)
    if methods:
        yield from check_methods(methods, registry, tell, limits)


def _table(checked: list[Checked]) -> str:
    from tabulate import tabulate

    counts: dict[str, Counter[str]] = {}
    for each in checked:
        counts.setdefault(each.backend, Counter())[each.status] += 1
    columns = [s for s in ("ok", "unsupported", "skipped", *FAILING) if any(c[s] for c in counts.values())]
    rows = [[name, *(count[s] or "" for s in columns), _verdict(count)] for name, count in counts.items()]
    return tabulate(rows, ["name", *columns, "verdict"], "simple")


def _verdict(count: Counter[str]) -> str:
    if any(count[s] for s in FAILING):
        return "FAILED"
    return "right" if count["ok"] else "not here" if count["skipped"] else "does nothing"


def _details(checked: list[Checked], verbose: bool) -> Iterator[str]:
    for name in dict.fromkeys(c.backend for c in checked):
        mine = [c for c in checked if c.backend == name]
        shown = mine if verbose else [c for c in mine if c.status in FAILING][:SHOWN]
        for each in shown:
            yield ": ".join(filter(None, (name, each.check, each.status, each.reason)))
        left = sum(c.status in FAILING for c in mine) - SHOWN
        if left > 0 and not verbose:
            yield f"{name}: and {left} more; see them with --verbose"
        reasons = Counter(c.reason for c in mine if c.status in ("unsupported", "skipped"))
        for reason, count in reasons.most_common(6) if not verbose else ():
            yield f"{name}: {count} not done: {reason}"


class _Progress:
    """A status line on stderr while checks run, on a terminal only."""

    def __enter__(self) -> _Progress:
        from rich.console import Console

        self.console = Console(stderr=True)
        self.status = self.console.status("starting …") if sys.stderr.isatty() else None
        if self.status:
            self.status.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self.status:
            self.status.stop()

    def tell(self, name: str, done: int, total: int) -> None:
        """How far a backend is."""
        if self.status:
            self.status.update(f"{name}: {done} of {total}")
