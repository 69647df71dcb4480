"""The one stopwatch: untimed repetitions, then timed ones, with CPU time and interruptions beside the wall time."""

from __future__ import annotations

import gc
import math
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

WARM_NS = 3_000_000  # the first repetition after another worker ran is 3 - 7 % slow, so it is not timed
SAMPLE_NS = 5_000_000
STREAM_NS = 20_000_000  # kernels that stream memory settle later


class Lap(NamedTuple):
    """One sample: wall and CPU nanoseconds of `loops` repetitions, and how often the kernel took the core away."""

    wall_ns: int
    cpu_ns: int
    switches: int
    loops: int

    @property
    def each_ns(self) -> float:
        """Wall nanoseconds of one repetition."""
        return self.wall_ns / self.loops


def lap(run: Callable[[], object], loops: int) -> Lap:
    """Time `loops` repetitions of `run` back to back."""
    repeat = range(loops)
    switches = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
    cpu, wall = time.process_time_ns(), time.perf_counter_ns()
    for _ in repeat:
        run()
    wall, cpu = time.perf_counter_ns() - wall, time.process_time_ns() - cpu
    return Lap(wall, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw - switches, loops)


def warm(run: Callable[[], object], least_ns: int = WARM_NS) -> float:
    """Repeat `run` untimed for at least `least_ns` (at least once); nanoseconds of its fastest repetition.

    Not of the last one: a repetition that was interrupted is the likeliest to cross the end.
    """
    start = before = time.perf_counter_ns()
    fastest = math.inf
    while True:
        run()
        now = time.perf_counter_ns()
        fastest = min(fastest, now - before)
        if now - start >= least_ns:
            return float(fastest)
        before = now


def loops_for(each_ns: float, target_ns: float = SAMPLE_NS) -> int:
    """How many repetitions of `each_ns` fill `target_ns`; at least one."""
    return max(1, math.ceil(target_ns / max(each_ns, 1.0)))


def race(runs: Mapping[str, Callable[[], object]], rounds: int = 5, target_ns: float = SAMPLE_NS) -> dict[str, float]:
    """Median nanoseconds of one repetition of each competitor, measured in turn so that drift hits all alike."""
    loops = {name: loops_for(warm(run), target_ns) for name, run in runs.items()}
    laps: dict[str, list[float]] = {name: [] for name in runs}
    with without_gc():
        for _ in range(rounds):
            for name, run in runs.items():
                warm(run)
                laps[name].append(lap(run, loops[name]).each_ns)
    return {name: statistics.median(times) for name, times in laps.items()}


@contextmanager
def without_gc() -> Iterator[None]:
    """No garbage collection while timing. (Collecting first would cost 0.1 s a sample: torch's heap is large.)"""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
