"""Calls the command line in this process and gives what a shell would see."""

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
