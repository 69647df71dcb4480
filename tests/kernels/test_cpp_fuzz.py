"""The fuzzer of kernels/cpp, run as `make fuzz` and `make fuzz-sanitized` do it, and proof that it finds faults."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

FUZZ = Path(__file__).parents[2] / "kernels" / "cpp" / "fuzz"
FAULTS = ["drop", "column", "offset", "padding", "bias", "stale", "precision", "unwritten", "guard", "input", "threads",
          "swallow"]  # fmt: skip
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}


def call(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)


def make(target: str, *variables: str) -> str:
    """What a target of the fuzzer's Makefile says; without a C++ compiler this fails, as building the package would."""
    made = call("make", "-s", "-C", FUZZ, target, *variables)
    assert made.returncode == 0, made.stdout + made.stderr
    return made.stdout


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    variables = [f"OUT={tmp_path_factory.mktemp('plain')}", "OPTIMIZE=-O1"]
    make("build", *variables)
    return variables


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    variables = [f"OUT={tmp_path_factory.mktemp('sanitized')}", "SANITIZE=1", "OPTIMIZE=-O0"]
    make("build", *variables)
    return variables


def program(variables: list[str]) -> str:
    return variables[0].removeprefix("OUT=") + "/fuzz"


def problems_done(report: str) -> int:
    """Over all parts of a run."""
    assert all(line.endswith(": 0 wrong") and "base" in line and "wide" in line for line in report.splitlines())
    return sum(int(line.split()[0]) for line in report.splitlines())


def test_no_mismatch(plain: list[str]) -> None:
    assert problems_done(make("run", *plain, "PROBLEMS=2000")) == 2000


def test_no_bad_access(sanitized: list[str]) -> None:
    assert problems_done(make("run", *sanitized, "PROBLEMS=60", "SEED=2")) == 60


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found_and_its_line_repeats_it(plain: list[str], fault: str) -> None:
    found = call(program(plain), "--problems", "300", "--isa", "base", "--plant", fault)
    assert found.returncode == 1
    line = found.stdout.splitlines()[0]
    repeat = shlex.split(line.split(":")[0])
    assert repeat[0] == "fuzz" and repeat[-2:] == ["--plant", fault]
    again = call(program(plain), *repeat[1:])
    assert again.returncode == 1
    assert again.stdout.splitlines()[0] == line
    assert call(program(plain), *repeat[1:-2]).returncode == 0  # without the fault it is right


def test_a_bad_access_is_found_by_the_sanitizer_alone(plain: list[str], sanitized: list[str]) -> None:
    read_beyond = ("--problems", "20", "--isa", "base", "--plant", "overrun")
    assert call(program(plain), *read_beyond).returncode == 0
    found = call(program(sanitized), *read_beyond)
    assert found.returncode != 0
    assert "heap-buffer-overflow" in found.stderr
    assert "--first 0 --problems 1 --isa base --plant overrun: a sanitizer stopped it" in found.stdout


@pytest.mark.parametrize(("words", "says"), [
    (["--isa", "avx9"], "does not run --isa avx9; it runs"),
    (["--plant", "nothing"], f"none of none {' '.join(FAULTS)} overrun"),
    (["--problems", "many"], "--problems takes a whole number, not many"),
    (["--seed"], "what is --seed?"),
])  # fmt: skip
def test_words_it_does_not_know_are_usage_errors(plain: list[str], words: list[str], says: str) -> None:
    refused = call(program(plain), *words)
    assert refused.returncode == 2
    assert says in refused.stderr
