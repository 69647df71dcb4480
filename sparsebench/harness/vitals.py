"""A process's own vital signs: peak memory, a canary, and the time that the hypervisor stole."""

from __future__ import annotations

import contextlib
import ctypes
import resource
import time
from pathlib import Path


def reset_peak() -> int:
    """Forget the highest resident memory so far; the memory held now, in bytes, what was freed not counted."""
    _give_back()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return resident_peak()  # no such file or no right to it: the peak of the whole process stands
    return resident_peak()


def _give_back() -> None:
    """Let the system have what was freed, which workers keep (`crew.environment`)."""
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


def resident_peak() -> int:
    """The highest resident memory since the last reset, in bytes."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # not Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def canary_ns() -> float:
    """Nanoseconds of a fixed piece of Python work: recorded beside every row, judged by nobody."""
    start = time.perf_counter_ns()
    sum(range(20_000))
    return float(time.perf_counter_ns() - start)


def stolen_ticks() -> tuple[int, int]:
    """(stolen, all) clock ticks of the machine so far; (0, 0) where they are not counted."""
    try:
        ticks = [int(t) for t in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError):
        return (0, 0)
    return (ticks[7], sum(ticks)) if len(ticks) == 8 else (0, 0)
