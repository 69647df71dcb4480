"""What a verb raised becomes one line on stderr and an exit code; only a bug of ours shows a traceback."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

import click

from sparsebench.errors import SparsebenchError

USAGE, INTERRUPTED = 2, 130
BUG = 70  # EX_SOFTWARE: Python's own 1 would read as "regression"
BROKEN_PIPE = 141  # as a shell reports SIGPIPE: `sparsebench list backends | head -1`


def exit_code_of(work: Callable[[], Any]) -> int:
    """Call `work`, print what went wrong, and give the exit code: the int that `work` returns, or 0."""
    try:
        result = work()
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except BrokenPipeError:
        _close_quietly()
        return BROKEN_PIPE
    except (KeyboardInterrupt, click.Abort):
        return say("interrupted", INTERRUPTED)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return USAGE
    except click.UsageError as error:
        return say(_one_line(error.format_message()) + _where_to_look(error.ctx), USAGE)
    except click.ClickException as error:
        return say(_one_line(error.format_message()), USAGE)
    except SparsebenchError as error:
        return say(_one_line(str(error)), error.exit_code)
    except OSError as error:
        return say(_one_line(str(error)), USAGE)
    except Exception:
        traceback.print_exc()
        return say("this is a bug in sparsebench; please report the lines above", BUG)


def say(message: str, code: int) -> int:
    """Print `message` on stderr and give `code` back."""
    click.echo(f"sparsebench: {message}", err=True)
    return code


def _one_line(message: str) -> str:
    return " ".join(message.split())


def _where_to_look(ctx: click.Context | None) -> str:
    return f" (try: {ctx.command_path} --help)" if ctx is not None else ""


def _close_quietly() -> None:
    """Point stdout at nothing, or the interpreter complains again when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
