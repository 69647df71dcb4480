"""What git remembers: a plugin file as it was, and that an environment of a revision is built once."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from sparsebench.errors import UsageError
from sparsebench.harness import revisions
from sparsebench.harness.revisions import built, file_at, is_revision


def git(*words: str) -> None:
    someone = ["-c", "user.name=someone", "-c", "user.email=someone@example.org"]
    subprocess.run(["git", *someone, *words], check=True, capture_output=True)


@pytest.fixture(autouse=True)
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two commits: "one" and, tagged v2, "two"; a file below a folder too."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "repository"
    folder.mkdir()
    monkeypatch.chdir(folder)
    git("init", "-q", "-b", "main")
    for text in ("one", "two"):
        Path("kernel.py").write_text(text)
        Path("below").mkdir(exist_ok=True)
        Path("below/kernel.py").write_text(f"{text} below")
        git("add", ".")
        git("commit", "-q", "-m", text)
    git("tag", "v2")
    return folder


def test_a_file_is_what_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    assert file_at("HEAD~1", "kernel.py").read_text() == "one"
    assert file_at("v2", "kernel.py").read_text() == "two"
    monkeypatch.chdir("below")
    assert file_at("v2", "kernel.py").read_text() == "two below", "a path is relative to where one stands"


def test_two_files_of_one_name_are_two() -> None:
    one, other = file_at("v2", "kernel.py"), file_at("v2", "below/kernel.py")
    assert (one.read_text(), other.read_text()) == ("two", "two below")


def test_what_git_does_not_know_is_said() -> None:
    assert is_revision("v2") and not is_revision("v3")
    with pytest.raises(UsageError, match="'v3' is no revision that git knows here"):
        file_at("v3", "kernel.py")
    with pytest.raises(UsageError, match=r"v2:other\.py: .*other\.py"):
        file_at("v2", "other.py")
    with pytest.raises(UsageError, match="is no checkout of sparsebench"):
        built("v2")


def test_an_environment_is_built_once_and_again_if_it_broke_midway(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("sparsebench").mkdir()
    Path("sparsebench/__init__.py").touch()
    git("add", ".")
    git("commit", "-q", "-m", "a checkout")
    seen: list[str] = []

    def build(commit: str, folder: Path, python: Path) -> None:
        seen.append(commit)
        python.parent.mkdir(parents=True)
        if len(seen) > 1:
            (folder / revisions.MARK).write_text(commit)

    monkeypatch.setattr(revisions, "_build", build)
    first = built("HEAD")
    assert [built("HEAD") for _ in range(2)] == [first] * 2
    assert len(seen) == 2, "the first try left no mark"
