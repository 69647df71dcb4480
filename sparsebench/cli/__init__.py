"""The door: one file per verb, imported only when called; nothing else in the project prints or exits."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from sparsebench.cli.errors import exit_code_of
from sparsebench.errors import UsageError, nearest

VERBS: dict[str, tuple[str, str]] = {  # verb -> (module:command, one line of help)
    "run": ("sparsebench.cli.run:command", "Verify and time every backend of a suite; print who wins."),
    "check": ("sparsebench.cli.check:command", "Verify without timing: a backend, a file, a suite, or all."),
    "tune": ("sparsebench.cli.tune:command", "Find the fastest backend and plan for each layer; keep them."),
    "ab": ("sparsebench.cli.ab:command", "Judge B against A side by side: backends, options, git revisions."),
    "compare": ("sparsebench.cli.compare:command", "Judge a run against a base run: faster, slower, same."),
    "report": ("sparsebench.cli.report:command", "Print a finished run again, or in another format."),
    "history": ("sparsebench.cli.history:command", "One case over all runs of a machine, and where it stepped."),
    "merge": ("sparsebench.cli.merge:command", "Make one run of the shards of a plan."),
    "list": ("sparsebench.cli.list:command", "Show which backends, models, suites, plugins are here."),
    "new": ("sparsebench.cli.new:command", "Start a plugin: package, test and README that pass as they are."),
    "doctor": ("sparsebench.cli.doctor:command", "Say what this machine is and what would steady timings."),
}
EXIT_CODES = """\
\b
Exit codes (the first that applies of 130, 2, 3, 4, 1, 5, 0):
  0    ok
  1    regression: something got slower or is missing, and the run was asked to fail on that
  2    usage or configuration: a misspelt name, an impossible value, an unreadable run
  3    a kernel gave a wrong result
  4    a case failed: error, crash, timeout, out of memory
  5    inconclusive, where the run was asked to fail on that
  70   a bug in sparsebench itself, with the traceback to report
  130  interrupted; `sparsebench run --resume RUN` goes on
"""
EXAMPLES = """\
\b
Examples:
  sparsebench run suite-smoke                       the whole way once, under a minute
  sparsebench run suite-cpu                         the main comparison, minutes
  sparsebench run suite-smoke --plugin my_kernel.py your kernel beside the others
  sparsebench check my_kernel.py                    is it right? no timing
  sparsebench compare BASE HEAD --fail-on slower    for CI
  sparsebench list backends                         what is here, what is missing
"""


class Verbs(click.Group):
    """A group that knows its verbs as text and imports one only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*VERBS]  # here `list` is our own module once that verb has been imported

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module, _, attribute = VERBS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            raise UsageError(f"{args[0]!r} is not a command{nearest(args[0], VERBS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(verb, text) for verb, (_, text) in VERBS.items()])


def _print_version(ctx: click.Context, _param: click.Parameter, asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        click.echo(f"sparsebench {version('sparsebench')}")
        ctx.exit()


@click.group(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=f"{EXAMPLES}\n{EXIT_CODES}\nCOMMAND --help says more. Next: sparsebench run suite-smoke",
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version,
              help="Print the version.")  # fmt: skip
def commands() -> None:
    """Find every sparse kernel and pruning method that is installed, prove each one right, time them
    against each other honestly, and print who wins, by how much, and how sure it is."""


def invoke(args: Sequence[str]) -> Any:
    """Run one command line and give what its verb returned; every exception goes through."""
    with commands.make_context("sparsebench", [*args]) as ctx:
        return commands.invoke(ctx)


def main(args: Sequence[str] | None = None) -> None:
    """Run a command line and exit; a verb says its exit code by returning an int."""
    sys.exit(exit_code_of(lambda: invoke(sys.argv[1:] if args is None else args)))
