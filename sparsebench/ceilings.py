"""What this machine can do at most, measured on the spot: multiply-adds per second, and bytes per second of each level.

A kernel can be no faster than the units that multiply or the memory that feeds them (the roofline: Williams, Waterman
& Patterson, CACM 2009), and both differ by machine, by clock and by who else works there. So the ceilings are taken
beside the kernels, by loops that do nothing else, each the best of a few short repetitions.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

from sparsebench import host
from sparsebench.errors import RunError
from sparsebench.runs.records import Ceilings, Level

SECONDS, REPETITIONS = 0.003, 16  # short, so that some of them are not interrupted even where others work
MEMORY_REPETITIONS = 4  # a set far larger than the caches takes 10 to 50 ms to read once
LEAST_MEMORY, MOST_MEMORY = 64 << 20, 512 << 20
TIMES_LAST_CACHE = 4  # what is read from memory is this many times the last cache, so that little of it is found there
TIMES_L2 = 8  # the same for what is read from L3; half of L3 may be more than a guest of a large machine gets
STEP, HELD, MOST_HELD = 1.5, 0.5, 64 << 20  # larger and larger sets, up to one that is read at under half the rate
PROBE_SECONDS = 60.0
PROBE = """
import os, sys, msgspec
from sparsebench.ceilings import measure
threads, cores = int(sys.argv[1]), [int(core) for core in sys.argv[2:]]
if cores:
    os.sched_setaffinity(0, cores)
sys.stdout.buffer.write(msgspec.json.encode(measure(threads)))
"""


def measure(threads: int = 1) -> Ceilings:
    """The ceilings of `threads` threads that work at once; about a second, less on small caches."""
    from sparsebench.kernels import _ceilings

    isa = _ceilings.best_isa()
    flops = _ceilings.flops(isa, threads=threads, seconds=SECONDS, repetitions=REPETITIONS)

    def rate(size: int, repetitions: int = REPETITIONS) -> float:
        return _ceilings.bandwidth(isa, size, threads=threads, seconds=SECONDS, repetitions=repetitions) / 1e9

    levels = []
    for name, size, capacity in working_sets(host.caches(), threads, _available()):
        gb_s = rate(size, REPETITIONS if capacity else MEMORY_REPETITIONS)
        if capacity > 2 * size * threads:  # shared, with whom we do not know
            capacity = threads * held(rate, size, min(capacity, MOST_HELD) // threads, HELD * gb_s)
        levels.append(Level(name=name, capacity=capacity, gb_s=gb_s))
    return Ceilings(threads=threads, isa=isa, gflops=flops / 1e9, levels=tuple(levels))


def measure_apart(
    threads: int = 1, cores: Sequence[int] = (), environment: Mapping[str, str] | None = None
) -> Ceilings:
    """`measure` in a process of its own, which leaves no threads behind, on `cores`; raises `RunError`."""
    command = [sys.executable, "-P", "-c", PROBE, str(threads), *map(str, cores)]
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=PROBE_SECONDS, check=False, env={**os.environ, **(environment or {})}
        )
        return msgspec.json.decode(done.stdout, type=Ceilings)
    except subprocess.TimeoutExpired:
        reason = f"their process did not end within {PROBE_SECONDS:g} s"
    except msgspec.MsgspecError:
        reason = (done.stderr.decode(errors="replace").strip().splitlines() or ["their process said nothing"])[-1]
    raise RunError(f"the machine's ceilings could not be measured: {reason}; see `sparsebench doctor`")


def working_sets(caches: Mapping[str, str], threads: int, available: int) -> Iterator[tuple[str, int, int]]:
    """(level, bytes that each thread reads, bytes that the level holds for all of them; 0 for memory), nearest first.

    `caches` is `host.caches()`: half of a thread's share of a cache is read, so that nothing else pushes it out.
    """
    inner = largest = 0
    for name, text in sorted(caches.items()):
        if name.endswith("i"):
            continue
        size, cores = parse_cache(text)
        capacity = size * -(-threads // cores)
        share = capacity // threads
        yield name.removesuffix("d"), min(share // 2, TIMES_L2 * inner) if inner else share // 2, capacity
        inner = 0 if name.startswith("L1") else share
        largest = max(largest, capacity)
    total = min(max(TIMES_LAST_CACHE * largest, LEAST_MEMORY), MOST_MEMORY, available // 4)
    yield "memory", total // threads, 0


def held(rate: Callable[[int], float], size: int, most: int, least: float) -> int:
    """The largest of ever larger sets, from `size` to `most` bytes, that is read at a `rate` of at least `least`.

    The cache of a shared machine holds what its neighbours leave of it.
    """
    while (larger := int(size * STEP)) <= most and rate(larger) >= least:
        size = larger
    return size


def parse_cache(text: str) -> tuple[int, int]:
    """(bytes, how many cores share them) of an entry of `host.caches()`: "32K", "32768K/2"."""
    size, _, cores = text.partition("/")
    units = {"K": 10, "M": 20, "G": 30}
    return int(size.rstrip("KMG")) << units.get(size[-1:], 0), int(cores or 1)


def _available() -> int:
    """Bytes of memory that are free here."""
    import psutil

    return min(int(psutil.virtual_memory().available), host.memory_limit() or sys.maxsize)
