"""The records of a file of plans."""

from __future__ import annotations

import msgspec

SCHEMA = 1


class Code(msgspec.Struct, frozen=True):
    """The module that a backend is loaded from, and the hash of the package it is in ("": unknown); see `code_of`."""

    module: str
    sha256: str


class Tuned(msgspec.Struct, frozen=True):
    """The best plan of one backend for one problem; `gain` is its speed over the backend's own choice."""

    options: dict[str, str | int]
    gain: float
    passes: str  # what was timed: "both" or "forward"
    code: Code
    made: str  # UTC


class Fastest(msgspec.Struct, frozen=True):
    """Who was fastest at one problem."""

    backend: str  # "" where the dense layer stays
    winner: str  # the backend with its plan, "cpp@tile=4"
    times_ns: dict[str, float]  # of "dense", and of each backend's best plan by backend
    codes: dict[str, Code]  # of every backend that was tried
    torch: str  # the version that the dense layer was timed with
    made: str


class Book(msgspec.Struct, frozen=True):
    """All that is kept for one kind of machine, by problem key; the fastest also by pass."""

    schema: int = SCHEMA
    machine: dict[str, str] = {}
    plans: dict[str, dict[str, Tuned]] = {}  # backend -> problem key
    fastest: dict[str, dict[str, Fastest]] = {}  # problem key -> "both" or "forward"
