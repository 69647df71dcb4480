"""How much the place in memory decides: `python tests/harness/measure_placement.py`, some 20 seconds, no test.

Sums of buffers of one size, each in memory of its own, in turn on one core, each after 1.5 ms of its own. "persistent"
is the standard deviation of what buffers differ by that is the same in odd and in even rounds.
"""

from __future__ import annotations

import mmap
import os
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

BUFFERS, ROUNDS = 10, 24
SIZES = (128, 256, 512, 768, 1024, 1536, 1900, 4096)  # KiB


def main() -> None:
    os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
    torch.set_num_threads(1)
    print("  KiB      us   GB/s  persistent  least and most of a buffer")
    for size in SIZES:
        print(told(size, measured(size)), flush=True)


def measured(size: int) -> np.ndarray:
    """Log times [round, buffer], each round's median taken off."""
    runs = [torch.frombuffer(filled(size << 10), dtype=torch.float32).sum for _ in range(BUFFERS)]
    draw = np.random.default_rng(0)
    times = np.zeros((ROUNDS, BUFFERS))
    for row in times:
        for buffer in draw.permutation(BUFFERS):
            repeated(runs[buffer], 1.5e6)
            row[buffer] = repeated(runs[buffer], 2.5e6)
    return np.log(times)


def filled(size: int) -> mmap.mmap:
    memory = mmap.mmap(-1, size)
    memory.write(b"\x01" * size)
    return memory


def repeated(run: Callable[[], object], least_ns: float) -> float:
    """Nanoseconds of a repetition, over at least so many."""
    count, start = 0, time.perf_counter_ns()
    while (spent := time.perf_counter_ns() - start) < least_ns:
        run()
        count += 1
    return spent / count


def told(size: int, logs: np.ndarray) -> str:
    ns = float(np.exp(np.median(logs)))
    logs = logs - np.median(logs, axis=1, keepdims=True)
    odd, even, every = (np.median(part, axis=0) for part in (logs[::2], logs[1::2], logs))
    persistent = max(0.0, statistics.covariance([*odd], [*even])) ** 0.5
    return (f"{size:5} {ns / 1e3:7.1f} {(size << 10) / ns:6.1f}  {persistent:9.1%}   "
            f"{np.expm1(every.min()):+.1%} {np.expm1(every.max()):+.1%}")  # fmt: skip


if __name__ == "__main__":
    main()
