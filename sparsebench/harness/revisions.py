"""Git revisions for `ab`: a plugin file as it was, and this project as it was, built once in an environment of its own.

The environment has that revision's sparsebench and, for all else, the packages of the one that runs: two revisions
differ by their own code and by nothing else.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from sparsebench.errors import UsageError

PROJECT = "sparsebench"
MARK = ".built"


def is_revision(text: str) -> bool:
    """Whether git knows a commit by this name, here."""
    return _git("rev-parse", "--verify", "--quiet", f"{text}^{{commit}}").returncode == 0


def file_at(revision: str, file: str) -> Path:
    """The plugin file as it was at a revision, written beside others of its kind."""
    found = commit(revision)
    shown = _git("show", f"{found}:./{file}")
    if shown.returncode:
        raise UsageError(f"{revision}:{file}: {shown.stderr.strip() or 'git shows no such file'}")
    prefix = _git("rev-parse", "--show-prefix").stdout.strip()  # where we stand in the checkout: paths are relative
    place = hashlib.sha256(f"{prefix} {file}".encode()).hexdigest()[:12]
    made = cache() / "files" / found / place / Path(file).name
    made.parent.mkdir(parents=True, exist_ok=True)
    made.write_text(shown.stdout)
    return made


def built(revision: str) -> str:
    """The interpreter of an environment with this project as it was at a revision; built when it is not there."""
    found = commit(revision)
    top = _git("rev-parse", "--show-toplevel").stdout.strip()
    if _git("cat-file", "-e", f"{found}:{PROJECT}/__init__.py").returncode:
        raise UsageError(f"{revision}: {top} is no checkout of {PROJECT}; only its own backends can be compared so")
    tag = f"{found}-{sys.implementation.cache_tag}"
    folder = cache() / "environments" / tag
    python = folder / "bin" / "python"
    if not (folder / MARK).exists():
        shutil.rmtree(folder, ignore_errors=True)
        _build(found, folder, python)
    return str(python)


def cache() -> Path:
    """Where environments and files are kept: $XDG_CACHE_HOME/sparsebench, or ~/.cache/sparsebench."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / PROJECT


def _build(commit: str, folder: Path, python: Path) -> None:
    """A worktree, a wheel of it, an environment with that wheel and our own packages behind it."""
    with tempfile.TemporaryDirectory() as place:
        tree = Path(place) / "tree"
        _must(_git("worktree", "add", "--detach", str(tree), commit), f"a worktree of {commit[:12]}")
        try:
            build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", place, str(tree)]
            _must(_call(*build), f"a wheel of {commit[:12]}")
        finally:
            _git("worktree", "remove", "--force", str(tree))
        _must(_call(sys.executable, "-m", "venv", "--without-pip", str(folder)), "an environment")
        packages = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
        wheel = next(Path(place).glob("*.whl"))
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", packages, str(wheel)]
        _must(_call(*install), f"{wheel.name}")
    # A path that a .pth file adds is searched last, and the .pth files in it are not read: so what is installed
    # editable here does not stand before the revision's own code.
    (Path(packages) / "packages.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    (folder / MARK).write_text(commit)


def commit(revision: str) -> str:
    """The commit that a name stands for now."""
    found = _git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    if found.returncode:
        raise UsageError(f"{revision!r} is no revision that git knows here; fetch it first (in CI: fetch-depth: 0)")
    return found.stdout.strip()


def _git(*words: str) -> subprocess.CompletedProcess[str]:
    try:
        return _call("git", *words)
    except FileNotFoundError:
        raise UsageError("git is not installed; revisions cannot be compared") from None


def _call(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, check=False)


def _must(done: subprocess.CompletedProcess[str], what: str) -> None:
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-8:]
        raise UsageError(f"{what} could not be made: {' '.join(last)}")
