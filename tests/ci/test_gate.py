"""The recipes of docs/ci.md, run as they stand there in a scratch repository: slower and wrong fail, else it passes."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "ci.md").read_text()


def recipe() -> str:
    """The shell commands that go anywhere."""
    found = re.search(r"<!-- gate: begin -->\n```sh\n(.*?)```\n<!-- gate: end -->", PAGE, re.DOTALL)
    assert found
    return found.group(1)


def workflow_step() -> str:
    """The step of GitHub's workflow that decides, as the shell there gets it."""
    found = re.search(r"<!-- workflow: begin -->\n```yaml\n(.*?)```\n<!-- workflow: end -->", PAGE, re.DOTALL)
    assert found
    lines = found.group(1).split("        run: |\n")[1].splitlines()
    step = itertools.takewhile(lambda line: line.startswith(" " * 10), lines)
    return "\n".join(line.removeprefix(" " * 10) for line in step) + "\n"


def shell(script: str, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """What a CI service does with it: `bash -e`."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "XDG_CACHE_HOME": str(folder.parent / "cache"), **more}
    return subprocess.run(
        ["bash", "-e", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("plant", "code", "verdicts"),
    [("slower", 1, ["slower"]), ("wrong", 3, ["wrong"]), ("unchanged", 0, ["same", "inconclusive"])],
)
def test_the_three_lines_find_what_was_planted(
    repository: Callable[[str], Path], plant: str, code: int, verdicts: list[str]
) -> None:
    folder = repository(plant)
    done = shell(recipe(), folder)
    assert done.returncode == code, done.stdout + done.stderr
    (duel,) = msgspec.json.decode((folder / "sparsebench.json").read_bytes())
    assert duel["verdict"] in verdicts
    assert duel["verdict"] in (folder / "sparsebench.md").read_text()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_workflow_says_it_on_the_page_of_the_job(repository: Callable[[str], Path]) -> None:
    folder = repository("wrong")
    page = folder.parent / "summary.md"
    done = shell(workflow_step(), folder, GITHUB_STEP_SUMMARY=str(page), GITHUB_BASE_REF="main")
    assert done.returncode == 3, done.stdout + done.stderr
    assert page.read_text().startswith("## sparsebench ab: 1 wrong")
    assert "::error title=wrong%3A my_kernel.py in layer::" in done.stdout


def test_the_two_recipes_are_one() -> None:
    """What the workflow runs is what goes anywhere, told where the branch began, and GitHub's output."""
    inside = workflow_step().replace("${GITHUB_BASE_REF:-main}", "main").replace(' "origin/main")', " origin/main)")
    assert " ".join(inside.replace(" --format github", "").split()) == " ".join(recipe().split())
