"""The file of plans of one kind of machine: read by whoever binds a weight, replaced as a whole by who has measured."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

import msgspec

from sparsebench.errors import PlansError, PlansWarning
from sparsebench.plans.keys import is_current, machine, problem_key
from sparsebench.plans.records import SCHEMA, Book, Fastest, Tuned
from sparsebench.problem import Problem

VARIABLE = "SPARSEBENCH_PLANS"


class _Head(msgspec.Struct):
    """The part that every schema has."""

    schema: int


class _Newer(PlansError):
    """A newer version wrote the file: it is not read, and not written over."""


def tuned_plan(backend: str, problem: Problem) -> Mapping[str, str | int] | None:
    """The plan that was fastest for `problem` on this machine with the code as it is now; None if nobody measured it.

    `backend` is the name as `sparsebench list backends` shows it, with the options that the user fixed in
    alphabetical order: "mine" or "mine@isa=avx2".
    """
    found = read().plans.get(backend, {}).get(problem_key(problem))
    return MappingProxyType(found.options) if found is not None and is_current(found.code) else None


def fastest(problem: Problem, passes: str) -> Fastest | None:
    """Who won at `problem` on this machine; None if nobody measured it. `is_current` tells whether that still holds."""
    return read().fastest.get(problem_key(problem), {}).get(passes)


def store(problem: Problem, passes: str, tuned: Mapping[str, Tuned], fastest: Fastest | None = None) -> Path:
    """Keep plans by backend, and who was fastest; the file that now holds them.

    Other processes may read and write at the same time. Raises `PlansError` where plans cannot be kept.
    """
    file, key = _place(), problem_key(problem)
    with _locked(file):
        book = _to_add_to(file)
        plans = {**book.plans, **{name: {**book.plans.get(name, {}), key: each} for name, each in tuned.items()}}
        winners = book.fastest
        if fastest is not None:
            winners = {**winners, key: {**winners.get(key, {}), passes: fastest}}
        _write(file, Book(machine=machine(), plans=plans, fastest=winners))
    return file


def check_writable() -> None:
    """Raise the `PlansError` now that `store` would raise later."""
    file = _place()
    with _locked(file):
        _to_add_to(file)


def _place() -> Path:
    file = location()
    if file is None:
        raise PlansError(f"{VARIABLE} is set to nothing, which turns plans off; unset it, or name a folder")
    return file


def read() -> Book:
    """What is kept for this machine; empty if nothing is, if plans are off, or if the file is no use (one warning)."""
    file = location()
    try:
        stamp = None if file is None else file.stat()
    except OSError:
        stamp = None
    if file is None or stamp is None:
        return Book()
    return _parsed(file, (stamp.st_ino, stamp.st_mtime_ns, stamp.st_size))


def clear() -> Path | None:
    """Forget what is kept for this machine; the file that is gone, or None if there was none."""
    file = location()
    if file is None or not file.exists():
        return None
    with _locked(file):
        file.unlink(missing_ok=True)
    return file


def folder() -> Path | None:
    """Where plans are kept; None where they are turned off."""
    chosen = os.environ.get(VARIABLE)
    if chosen is not None:
        return Path(chosen).expanduser() if chosen.strip() else None
    caches = Path(os.environ.get("XDG_CACHE_HOME", ""))
    with contextlib.suppress(RuntimeError):  # an account without a home
        return (caches if caches.is_absolute() else Path.home() / ".cache") / "sparsebench" / "plans"
    return None


def location() -> Path | None:
    """The file for this machine, whether it is there or not; None where plans are turned off."""
    place = folder()
    digest = hashlib.sha256(json.dumps(machine(), sort_keys=True).encode()).hexdigest()
    return None if place is None else place / f"{digest[:16]}.json"


@lru_cache(maxsize=8)
def _parsed(file: Path, stamp: tuple[int, int, int]) -> Book:
    """The book in a file that is in this state; an empty one, with a warning, if it is no use."""
    try:
        return _book(file)
    except FileNotFoundError:  # cleared this moment
        return Book()
    except PlansError as error:
        warnings.warn(f"{error}; until then there are no plans", PlansWarning, stacklevel=4)
        return Book()


def _book(file: Path) -> Book:
    """Raises `PlansError` for what is no book of ours, saying what to do; `FileNotFoundError` where there is none."""
    try:
        data = file.read_bytes()
        schema = msgspec.json.decode(data, type=_Head).schema
        if schema > SCHEMA:
            raise _Newer(f"{file}: schema {schema} is newer than {SCHEMA}; update sparsebench, or delete the file")
        return msgspec.json.decode(data, type=Book)
    except FileNotFoundError:
        raise
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OSError) as error:
        raise PlansError(f"{file}: not a file of plans ({error}); delete it, or run `sparsebench tune` again") from None


def _to_add_to(file: Path) -> Book:
    """What is there already. What is corrupt is given up; what a newer version wrote is not."""
    try:
        return _book(file)
    except _Newer:
        raise
    except (FileNotFoundError, PlansError):
        return Book()


def _write(file: Path, book: Book) -> None:
    """Replace the file as a whole: who reads it sees the old one or the new one."""
    text = msgspec.json.format(msgspec.json.encode(book, order="sorted"), indent=1)
    with _writable(file):
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=file.stem, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as part:
                part.write(text)
            Path(name).replace(file)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    """One writer at a time: a second one would lose what the first one adds. The lock ends with its process."""
    with _writable(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = file.with_suffix(".lock").open("a")
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _writable(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = f"{file.parent}: plans cannot be kept there ({error.strerror})"
        raise PlansError(f"{where}; set {VARIABLE} to a folder of yours") from None
