"""A scratch repository with a kernel in it, and three changes to that kernel: slower, wrong, none that matters."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SUITE = """
schema = 1
[suite]
name = "gate"
threads = [1]
[[kernel]]
name = "layer"
op = "linear"
out_features = 512
in_features = 512
batch = 128
sparsity = 0.9
pass = "forward"
"""
PRODUCT = "        output = product(self.columns, self.starts, self.values, x)\n"
PLANTS: dict[str, Callable[[str], str]] = {
    # a third of the work a second time
    "slower": lambda text: text.replace(
        PRODUCT, PRODUCT + "        product(self.columns, self.starts, self.values, x[: len(x) // 3])\n"
    ),
    "wrong": lambda text: text.replace("self.values, x)\n", "-self.values, x)\n"),
    "unchanged": lambda text: f"# a comment more\n{text}",
}


def kernel() -> str:
    """The kernel that the README shows."""
    text = (ROOT / "README.md").read_text()
    return text.split("<!-- plugin: begin -->\n```python\n")[1].split("```\n<!-- plugin: end -->")[0]


def git(folder: Path, *words: str) -> None:
    """Runs git as somebody."""
    someone = ["-c", "user.name=someone", "-c", "user.email=someone@example.org"]
    subprocess.run(["git", *someone, *words], cwd=folder, check=True, capture_output=True)


def scratch(folder: Path, plant: str) -> Path:
    """A clone in `folder` whose branch has one change since `origin/main`."""
    origin, clone = folder / "origin.git", folder / "clone"
    subprocess.run(["git", "init", "--quiet", "--bare", "-b", "main", origin], check=True, capture_output=True)
    subprocess.run(["git", "clone", "--quiet", origin, clone], check=True, capture_output=True)
    (clone / "my_kernel.py").write_text(kernel())
    (clone / "my_suite.toml").write_text(SUITE)
    git(clone, "checkout", "-q", "-b", "main")
    git(clone, "add", ".")
    git(clone, "commit", "-q", "-m", "a kernel")
    git(clone, "push", "-q", "origin", "main")
    git(clone, "checkout", "-q", "-b", "work")
    changed = PLANTS[plant](kernel())
    assert changed != kernel()
    (clone / "my_kernel.py").write_text(changed)
    git(clone, "commit", "-q", "-a", "-m", plant)
    return clone


@pytest.fixture
def repository(tmp_path: Path) -> Callable[[str], Path]:
    """Makes a clone with a planted change."""
    return lambda plant: scratch(tmp_path, plant)
