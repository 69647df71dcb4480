"""The door as a whole: help that teaches, one line for every mistake, and the exit codes of the contract."""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import click
import pytest

from sparsebench import cli, errors
from sparsebench.cli import VERBS
from sparsebench.cli.errors import exit_code_of

Call = Callable[..., Any]


def test_help_names_every_verb_every_exit_code_and_what_to_try_next(call: Call) -> None:
    code, out, _ = call("--help")
    assert code == 0
    for word in (*VERBS, "Examples:", "Exit codes", "130", "Next: sparsebench run suite-smoke"):
        assert word in out
    for exit_code in ("0", "1", "2", "3", "4", "5", "70", "130"):
        assert any(line.strip().startswith(f"{exit_code} ") for line in out.splitlines())
    assert max(map(len, out.splitlines())) <= 100


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_every_verb_teaches(call: Call, verb: str) -> None:
    code, out, _ = call(verb, "--help")
    assert code == 0
    assert "Examples:" in out
    assert "Next:" in out
    assert max(map(len, out.splitlines())) <= 100


def test_without_arguments_it_shows_the_help_and_exits_2(call: Call) -> None:
    code, out, err = call()
    assert code == 2
    assert "Examples:" in out + err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["lst"], ["'lst'", "did you mean 'list'"]),
        (["zzz"], ["'zzz'", "known:", "doctor"]),
        (["--frobnicate"], ["--frobnicate", "sparsebench --help"]),
        (["list"], ["Missing argument", "sparsebench list --help"]),
        (["list", "backend"], ["'backend'", "did you mean 'backends'"]),
        (["list", "backends", "--jsn"], ["--jsn", "sparsebench list --help"]),
        (["list", "backends", "--plugin", "nowhere.py"], ["nowhere.py", "no such file"]),
        (["new", "kernel", "mine"], ["'kernel'", "backend"]),
        (["report", "no-such-run"], ["no-such-run"]),
        (["compare", "no-such-run", "another"], ["no-such-run"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_is_one_line_and_exits_2(call: Call, args: list[str], words: list[str]) -> None:
    code, out, err = call(*args)
    assert (code, out) == (2, "")
    assert err.startswith("sparsebench: ")
    assert err.count("\n") == 1
    for word in words:
        assert word in err


def test_every_kind_of_error_has_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    def raising(error: BaseException) -> Callable[[], None]:
        def work() -> None:
            raise error

        return work

    cases: list[tuple[BaseException, int]] = [
        (errors.UsageError("a\nb"), 2),
        (errors.RunError("torn"), 2),
        (click.UsageError("what"), 2),
        (click.ClickException("what"), 2),
        (PermissionError(13, "Permission denied", "a file"), 2),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
        (click.exceptions.Exit(5), 5),
        (ZeroDivisionError("ours"), 70),
    ]
    for error, code in cases:
        assert exit_code_of(raising(error)) == code, error
    err = capsys.readouterr().err
    assert "sparsebench: a b\n" in err
    assert err.count("Traceback") == 1, "only a bug of ours shows where it happened"


def test_a_verb_says_its_exit_code_by_returning_it() -> None:
    assert exit_code_of(lambda: 3) == 3
    assert exit_code_of(lambda: None) == 0
    assert exit_code_of(lambda: "text") == 0


def test_a_closed_pipe_is_quiet() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    program = "from sparsebench.cli import main; main(['list', 'backends', '--json'])"
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_ctrl_c_is_130(monkeypatch: pytest.MonkeyPatch, call: Call) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "invoke", interrupted)
    assert call("list", "suites") == (130, "", "sparsebench: interrupted\n")
