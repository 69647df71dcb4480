"""The grid of checks as pure data: which problems, bound to what weight, fed in which way.

A backend that takes only some patterns or dtypes gets the whole grid on the first that it takes, as far as a pattern
allows: `nm:2:4` has its own sparsity, needs whole groups of input channels, and no full or empty weight keeps it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from sparsebench.plugin import BackendSpec
from sparsebench.problem import Problem

WEIGHTS = ("empty weight", "full weight", "empty rows and columns", "explicit zeros", "one non-zero")
FEEDS = ("transposed", "every other element", "unaligned", "expanded", "channels last")
OTHER = ("non-finite input", "alternating shapes", "two threads")
KINDS = ("verify", *WEIGHTS, *FEEDS, *OTHER)
NOT_NM = tuple(kind for kind in WEIGHTS if kind != "explicit zeros")  # they do not keep K of every G
EXAMPLES = ("uniform", "row-skewed", "block:4", "nm:2:4")  # of every family but files


@dataclass(frozen=True)
class Check:
    """One check: `kind` says what is special about it, "verify" that nothing is."""

    name: str
    problem: Problem
    kind: str


def checks_for(spec: BackendSpec) -> list[Check]:
    """All checks that the spec's ops, dtypes and patterns allow, in a fixed order; names and problems are unique."""
    found: dict[tuple[Problem, str], Check] = {}
    for op, make in (("linear", _linear), ("conv2d", _conv2d)):
        for check in make(_patterns(spec)) if op in spec.ops else ():
            fitted = _fitted(check, spec)
            if fitted is not None:
                found.setdefault((fitted.problem, fitted.kind), fitted)
    return list(found.values())


def _patterns(spec: BackendSpec) -> list[str]:
    """An example of every family, and the patterns that the spec names; a pattern of a file is none to begin with."""
    named = [each for each in spec.patterns if ":" in each and not each.startswith("file:")]
    return list(dict.fromkeys([*EXAMPLES, *named]))


def _fitted(check: Check, spec: BackendSpec) -> Check | None:
    """The check on the first pattern, and in the first dtype, that the spec takes; None if there is none.

    What the check is about stays: one of another pattern or of float64 is not made into a common one.
    """
    problem = check.problem
    if problem.dtype == "float32" and problem.dtype not in spec.dtypes:
        problem = replace(problem, dtype=spec.dtypes[0])
    for pattern in _patterns(spec) if problem.pattern == "uniform" else [problem.pattern]:
        fitted = _on_pattern(problem, pattern)
        if fitted is None or spec.refuses(fitted) or (pattern.startswith("nm:") and check.kind in NOT_NM):
            continue
        return Check(
            check.name if pattern == check.problem.pattern else f"{check.name} on {pattern}", fitted, check.kind
        )
    return None


def _on_pattern(problem: Problem, pattern: str) -> Problem | None:
    """The problem with another pattern; for nm:K:G with its sparsity and, but for single channels, whole groups."""
    family, _, numbers = pattern.partition(":")
    if family != "nm":
        return replace(problem, pattern=pattern)
    keep, group = (int(number) for number in numbers.split(":"))
    channels = problem.in_features // problem.groups
    if channels == 1:
        return None
    whole = -(-channels // group) * group * problem.groups
    return replace(problem, pattern=pattern, sparsity=1 - keep / group, in_features=whole)


def _linear(patterns: list[str]) -> Iterator[Check]:
    yield Check("linear 1x1 batch 1", _line(out_features=1, in_features=1, batch=1, sparsity=0.0), "verify")
    for rows, columns, batch in ((7, 5, 3), (64, 64, 16), (33, 65, 17), (129, 100, 1), (31, 257, 130)):
        for sparsity in (0.5, 0.9):
            problem = _line(out_features=rows, in_features=columns, batch=batch, sparsity=sparsity)
            yield Check(f"linear {rows}x{columns} batch {batch} at {sparsity}", problem, "verify")
    for pattern in patterns[1:]:
        yield from _of_pattern(_line(sparsity=0.9), pattern)
    yield Check("linear 70x130 batch 17 at 0.99", _line(out_features=70, in_features=130, sparsity=0.99), "verify")
    yield Check("linear with bias", _line(bias=True), "verify")
    yield Check("linear float64", _line(dtype="float64", bias=True), "verify")
    for kind in (*WEIGHTS, *FEEDS[:-1], *OTHER):
        yield Check(f"linear {kind}", _special(_line(bias=True), kind), kind)
    yield Check("linear batch 1 unaligned", _line(batch=1), "unaligned")


def _conv2d(patterns: list[str]) -> Iterator[Check]:
    changes: dict[str, dict[str, Any]] = {
        "1x1": {"kernel_size": (1, 1), "padding": (0, 0)},
        "3x3": {},
        "5x5": {"kernel_size": (5, 5), "padding": (2, 2)},
        "7x7 stride 2 on 15x13": {
            "kernel_size": (7, 7),
            "stride": (2, 2),
            "padding": (3, 3),
            "height": 15,
            "width": 13,
        },
        "3x3 batch 1": {"batch": 1},
        "3x3 batch 17": {"batch": 17, "height": 5, "width": 3},
        "3x3 with bias": {"bias": True},
        "3x3 at 0.5": {"sparsity": 0.5},
        "3x3 without padding": {"padding": (0, 0)},
        "3x3 stride 2": {"stride": (2, 2)},
        "1x1 stride 2": {"kernel_size": (1, 1), "padding": (0, 0), "stride": (2, 2)},
        "uneven stride": {"stride": (2, 1)},
        "stride past the kernel": {"stride": (4, 5)},
        "uneven padding": {"padding": (0, 2)},
        "padding past the kernel": {"padding": (4, 3)},
        "dilation 2": {"dilation": (2, 2), "padding": (2, 2)},
        "uneven dilation": {"dilation": (1, 3), "padding": (1, 2)},
        "groups 2": {"groups": 2},
        "depthwise": {"in_features": 6, "out_features": 6, "groups": 6, "sparsity": 0.5},
        "depthwise with multiplier": {"in_features": 6, "out_features": 12, "groups": 6, "sparsity": 0.5},
        "1x3 kernel": {"kernel_size": (1, 3), "padding": (0, 1)},
        "3x2 kernel": {"kernel_size": (3, 2)},
        "kernel as large as the input": {"kernel_size": (7, 6), "padding": (0, 0)},
        "odd channels": {"in_features": 5, "out_features": 11},
        "one channel": {"in_features": 1, "out_features": 1, "sparsity": 0.5},
        "input of one pixel": {"height": 1, "width": 1},
        "float64": {"dtype": "float64", "bias": True},
    }
    for name, change in changes.items():
        yield Check(f"conv2d {name}", _conv(**change), "verify")
    for pattern in patterns[1:]:
        yield from _of_pattern(_conv(), pattern)
    for kind in (*WEIGHTS, *FEEDS, *OTHER):
        yield Check(f"conv2d {kind}", _special(_conv(bias=True), kind), kind)
    yield Check("conv2d 1x1 channels last", _conv(kernel_size=(1, 1), padding=(0, 0)), "channels last")


def _of_pattern(problem: Problem, pattern: str) -> Iterator[Check]:
    fitted = _on_pattern(problem, pattern)
    if fitted is not None:
        yield Check(f"{problem.op} {pattern}", fitted, "verify")


def _line(**change: Any) -> Problem:
    given = {"out_features": 33, "in_features": 65, "batch": 17, "sparsity": 0.8}
    return Problem(op="linear", **{**given, **change})


def _conv(**change: Any) -> Problem:
    given = {"out_features": 16, "in_features": 8, "kernel_size": (3, 3), "padding": (1, 1), "batch": 3}
    return Problem(op="conv2d", **{**given, "height": 7, "width": 6, "sparsity": 0.8, **change})


def _special(problem: Problem, kind: str) -> Problem:
    """The problem as a kernel must be told of it: its sparsity and threads are those of the check."""
    if kind == "two threads":
        return replace(problem, threads=2)
    return replace(problem, sparsity=0.0) if kind == "full weight" else problem
