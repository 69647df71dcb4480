"""How a cell is measured: loops, rounds, the order within each round, and which rounds were spoiled. Pure decisions.

One discarded round, then 12 of samples of at least 5 ms (20 ms where a kernel streams memory), each after 3 ms untimed;
a few of one repetition where that takes longer than 100 ms. docs/METHODOLOGY.md says why.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sparsebench.problem import Problem
from sparsebench.timing import SAMPLE_NS, STREAM_NS, WARM_NS, loops_for

ROUNDS = 12
DISCARDED = 1  # a cell's first three are up to 2 % slower, all variants alike; a median of 12 sees nothing of it
SLOW_NS, SLOW_ROUNDS = 100e6, 4
LONGEST_SAMPLES = 4  # a slow variant beside a fast one takes at most this many times the least sample
SPOILED = 1.05  # wall over CPU time above which something else had the core
L2_BYTES = 1 << 20


@dataclass(frozen=True)
class Schedule:
    """What to do in one cell of one block."""

    rounds: int
    discarded: int
    loops: Mapping[str, int]  # timed repetitions of each variant
    warm_ns: Mapping[str, int]  # least untimed time before each sample; 0 where one repetition takes long itself


def schedule(each_ns: Mapping[str, float | None], rounds: int | None, streams: bool, times: int = 1) -> Schedule:
    """Decide from the nanoseconds of one repetition of each variant; None means that it runs only once.

    There are so many `times` the rounds that there would be.
    """
    known = [t for t in each_ns.values() if t is not None]
    if len(known) < len(each_ns):
        return Schedule(1, 0, dict.fromkeys(each_ns, 1), dict.fromkeys(each_ns, 0))
    loops = _loops(each_ns, STREAM_NS if streams else SAMPLE_NS)
    warm = {name: 0 if t is not None and t > SLOW_NS else WARM_NS for name, t in each_ns.items()}
    if max(known, default=0.0) > SLOW_NS:
        return Schedule(times * (rounds or SLOW_ROUNDS), DISCARDED, loops, warm)
    return Schedule(times * (rounds or ROUNDS), DISCARDED, loops, warm)


def _loops(each_ns: Mapping[str, float | None], target: float) -> dict[str, int]:
    """The same number for all, as the fastest needs, but for those that would take several samples' time."""
    known = {name: t for name, t in each_ns.items() if t is not None}
    shared = loops_for(min(known.values(), default=1.0), target)
    return {name: min(shared, loops_for(t, LONGEST_SAMPLES * target)) for name, t in known.items()}


def streams_memory(problem: Problem | None) -> bool:
    """Whether every repetition of the dense baseline reads its weight from beyond L2: few inputs, a large weight."""
    if problem is None or problem.positions > 8:
        return False
    return problem.out_features * problem.columns * 4 > L2_BYTES


def orders(variants: Sequence[str], rounds: int, seed: str) -> list[list[str]]:
    """A random order for each round, balanced: over consecutive rounds each variant takes each place equally often."""
    draw = random.Random(seed)
    made: list[list[str]] = []
    while variants and len(made) < rounds:
        square = list(variants)
        draw.shuffle(square)
        turns = [square[i:] + square[:i] for i in range(len(square))]
        draw.shuffle(turns)
        made += turns
    return made[:rounds]


def spoiled_rounds(
    wall_ns: Mapping[str, Sequence[float]], cpu_ns: Mapping[str, Sequence[float]], threads: int
) -> list[int]:
    """Rounds in which something else had the core, for any variant: to be dropped for all.

    A variant that waits in *every* round while another mostly does not (it sleeps, or leaves threads idle) is measured
    by its own least wait: that is its nature, not the machine's. Waits are compared as shares of the wall time; a
    sleeper's CPU time is too short to divide by. A round without a wall time (a clock that stood still) is spoiled too.
    """
    waits = {v: [w - c / threads for w, c in zip(wall_ns[v], cpu_ns[v], strict=True)] for v in wall_ns}
    share = 1 - 1 / SPOILED
    allowed = {v: [share * wall for wall in wall_ns[v]] for v in wall_ns}
    calm = threads > 1 or any(_mostly(w <= a for w, a in zip(waits[v], allowed[v], strict=True)) for v in waits)
    rounds = min((len(each) for each in waits.values()), default=0)
    told = calm and rounds >= 3  # of fewer rounds nobody can tell what is a variant's nature
    nature = {v: max(0.0, min(waits[v], default=0.0)) if told else 0.0 for v in waits}
    return [
        r for r in range(rounds) if any(wall_ns[v][r] <= 0 or waits[v][r] - nature[v] > allowed[v][r] for v in waits)
    ]


def _mostly(answers: Iterable[bool]) -> bool:
    seen = list(answers)
    return 2 * sum(seen) > len(seen)


def is_contaminated(dropped: int, rounds: int) -> bool:
    """Whether a block has lost too many rounds of a cell to be used."""
    return dropped * 3 >= rounds and dropped > 0
