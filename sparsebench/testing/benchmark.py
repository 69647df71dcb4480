"""Behind the fixture `kernel_benchmark`: a kernel proven right, timed by pytest-benchmark as our stopwatch would, again
looked at. One process and no baseline beside it: good for watching a kernel while writing it, not for a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from sparsebench.errors import UnsupportedError, UsageError, nearest
from sparsebench.oracle import Oracle, make_oracle
from sparsebench.place import NEEDS, Place
from sparsebench.problem import Problem
from sparsebench.registry import load_registry
from sparsebench.testing.conformance import threads_set
from sparsebench.timing import loops_for, warm, without_gc
from sparsebench.tolerance import judged_precision
from sparsebench.verify import Finding, recheck, verify_kernel

ROUNDS, DISCARDED = 12, 1  # as a block has them
PASSES = ("forward", *NEEDS)


@dataclass(frozen=True)
class KernelBenchmark:
    """What was measured: the largest error relative to what rounding may do, and repetitions in a round."""

    backend: str
    max_rel_err: float
    tolerance: float
    loops: int


def measure_kernel(
    benchmark: Any, backend: str, problem: Problem, which: str, files: Sequence[str] = ()
) -> KernelBenchmark:
    """Verify, time `which` pass by pytest-benchmark's fixture, and look again; fails or skips the test, or returns.

    UsageError for a backend or a pass that nothing has.
    """
    if which not in PASSES:
        raise UsageError(f"pass {which!r} is not known{nearest(which, PASSES)}")
    kernel, oracle, precision = _bound(backend, problem, files)
    with threads_set(problem.threads):
        finding = _right(verify_kernel(kernel, oracle, precision), backend, "before it was timed")
        place = Place(kernel, oracle, which)
        loops = loops_for(min(warm(place.run) for _ in range(3)))  # the first repetitions of all are slow
        benchmark.extra_info.update(
            backend=backend, problem=str(problem), max_rel_err=finding.max_rel_err, tolerance=finding.tolerance
        )
        benchmark.extra_info["pass"] = which
        with without_gc():
            benchmark.pedantic(place.run, rounds=ROUNDS, iterations=loops, warmup_rounds=DISCARDED)
        looked = recheck(kernel, oracle, precision, place.x, place.grad_output, place.bias)
        _right(looked, backend, "after it was timed")
    return KernelBenchmark(backend, finding.max_rel_err, finding.tolerance, loops)


def _bound(name: str, problem: Problem, files: Sequence[str]) -> tuple[Any, Oracle, str]:
    """The kernel with its oracle and the precision it is judged in; skips what cannot run here."""
    registry = load_registry(files)
    entry, _ = registry.find("backends", name)
    missing = entry.missing()
    if missing:
        pytest.skip(missing)
    backend = registry.create("backends", name)
    reason = entry.spec.refuses(problem) or backend.unsupported(problem)
    if reason:
        pytest.skip(str(reason))
    oracle = make_oracle(problem)
    try:
        with torch.no_grad():
            kernel = backend.bind(problem, oracle.weight)
    except UnsupportedError as error:
        pytest.skip(str(error))
    return kernel, oracle, judged_precision(entry.spec.precision, problem.dtype)


def _right(finding: Finding, backend: str, when: str) -> Finding:
    if not finding.ok:
        pytest.fail(f"{backend} is wrong {when}: {finding.reason}", pytrace=False)
    return finding
