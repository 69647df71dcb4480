"""From a path, the beginning of a name, an id or `latest` to one run."""

import os
from pathlib import Path

import pytest

from sparsebench.cli.find import RESULTS, find_run
from sparsebench.errors import UsageError
from sparsebench.harness import runner

NAMES = ("suite-cpu-20260101T000000Z-aa11", "suite-smoke-20260101T000000Z-ab22", "suite-smoke-20260102T000000Z-cc33")
REFERENCES = ("suite-cpu-zen3", "suite-cpu-zen4", "suite-train-zen3")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for age, name in enumerate(reversed(NAMES)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").touch()
        os.utime(tmp_path / name / "run.json", (1000 - age, 1000 - age))
    for name in REFERENCES:
        (tmp_path / "reference" / name).mkdir(parents=True)
        (tmp_path / "reference" / name / "run.json").touch()  # newer than all of ours
    (tmp_path / "notes").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("latest", 2),
        (NAMES[0], 0),
        ("suite-cpu", 0),
        ("suite-smoke-20260102", 2),
        ("aa", 0),
        ("ab22", 1),
    ],
)
def test_finds(root: Path, text: str, found: int) -> None:
    assert find_run(text, root) == root / NAMES[found]


@pytest.mark.parametrize(
    ("text", "found"),
    [("suite-cpu-zen3", "suite-cpu-zen3"), ("suite-train", "suite-train-zen3"), ("zen4", "suite-cpu-zen4")],
)
def test_finds_references(root: Path, text: str, found: str) -> None:
    assert find_run(text, root) == root / "reference" / found


def test_runs_are_looked_for_where_they_are_put() -> None:
    assert RESULTS == runner.ROOT


def test_a_path_stands_for_itself(root: Path) -> None:
    assert find_run(str(root / "notes"), root) == root / "notes"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("suite-smoke", [NAMES[1], NAMES[2], "write more"]),
        ("a", [NAMES[0], NAMES[1]]),
        ("suite-cup", ["'suite-cup'", "no run"]),
        ("zen3", [REFERENCES[0], REFERENCES[2], "write more"]),
        ("suite-trian-zen3", [REFERENCES[2]]),
        ("", ["no run"]),
        ("notes", ["no run"]),
        ("xyz", [f"known: latest, {NAMES[0]}, {REFERENCES[0]}, {REFERENCES[1]} and 3 more"]),
    ],
)
def test_says_why_not(root: Path, text: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    empty = root / "elsewhere"
    empty.mkdir()
    monkeypatch.chdir(empty)
    if not text:
        monkeypatch.setattr(Path, "exists", lambda _: False)  # Path("") is the current folder
    with pytest.raises(UsageError) as error:
        find_run(text, root)
    for word in words:
        assert word in str(error.value)


def test_latest_of_nothing_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="sparsebench run suite-smoke"):
        find_run("latest", tmp_path)
