"""Calls the command line in this process and gives what a shell would see."""

import contextlib
import io
from collections.abc import Callable
from typing import NamedTuple

import pytest

from sparsebench.cli import main


class Seen(NamedTuple):
    """Exit code, stdout, stderr."""

    code: int
    out: str
    err: str


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., Seen]:
    def run(*args: str) -> Seen:
        with pytest.raises(SystemExit) as stop:
            main(args)
        out, err = capsys.readouterr()
        return Seen(int(stop.value.code or 0), out, err)

    return run


@pytest.fixture(scope="session")
def shell() -> Callable[..., Seen]:
    """The same for what takes long and is looked at by several tests: it has no test's own `capsys`."""

    def run(*args: str) -> Seen:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as stop:
            main(args)
        return Seen(int(stop.value.code or 0), out.getvalue(), err.getvalue())

    return run
