"""How a cell is measured: loops, rounds, the order within each round, and which rounds were spoiled. Pure decisions.

12 rounds of samples of at least 5 ms (20 ms where a kernel streams memory), each after 3 ms untimed; where one
repetition takes longer than 100 ms, one discarded round and a few of one repetition. docs/METHODOLOGY.md says why.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sparsebench.problem import Problem
from sparsebench.timing import SAMPLE_NS, STREAM_NS, WARM_NS, loops_for

ROUNDS, DISCARDED = 12, 2
SLOW_NS, SLOW_ROUNDS, SLOW_DISCARDED = 100e6, 4, 1
LONGEST_SAMPLES = 4  # a slow variant beside a fast one takes at most this many times the least sample
SPOILED = 1.05  # wall over CPU time above which something else had the core
L2_BYTES = 1 << 20


@dataclass(frozen=True)
class Schedule:
    """What to do in one cell of one block."""

    rounds: int
    discarded: int
    loops: Mapping[str, int]  # timed repetitions of each variant
    warm_ns: int  # least untimed time before each sample


def schedule(each_ns: Mapping[str, float | None], rounds: int | None, streams: bool) -> Schedule:
    """Decide from the nanoseconds of one repetition of each variant; None means that it runs only once."""
    known = [t for t in each_ns.values() if t is not None]
    if len(known) < len(each_ns):
        return Schedule(1, 0, dict.fromkeys(each_ns, 1), 0)
    if max(known, default=0.0) > SLOW_NS:
        return Schedule(rounds or SLOW_ROUNDS, SLOW_DISCARDED, _loops(each_ns, SAMPLE_NS), 0)
    target = STREAM_NS if streams else SAMPLE_NS
    return Schedule(rounds or ROUNDS, DISCARDED, _loops(each_ns, target), WARM_NS)


def _loops(each_ns: Mapping[str, float | None], target: float) -> dict[str, int]:
    """The same number for all, as the fastest needs, but for those that would take several samples' time."""
    known = {name: t for name, t in each_ns.items() if t is not None}
    shared = loops_for(min(known.values(), default=1.0), target)
    return {name: min(shared, loops_for(t, LONGEST_SAMPLES * target)) for name, t in known.items()}


def streams_memory(problem: Problem | None) -> bool:
    """Whether every repetition reads its weight from beyond L2: few inputs, a large weight."""
    if problem is None or problem.positions > 8:
        return False
    kept = (1 - problem.sparsity) * problem.out_features * problem.columns
    return kept * 8 > L2_BYTES


def orders(variants: Sequence[str], rounds: int, seed: str) -> list[list[str]]:
    """A random order for each round, balanced: over consecutive rounds each variant takes each place equally often."""
    draw = random.Random(seed)
    made: list[list[str]] = []
    while len(made) < rounds:
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

    A variant that waits in *every* round while another never does (it sleeps, or leaves threads idle) is measured
    by its own least wait: that is its nature, not the machine's.
    """
    waits = {v: [w / max(c / threads, 1.0) for w, c in zip(wall_ns[v], cpu_ns[v], strict=True)] for v in wall_ns}
    least = {v: min(ratios, default=1.0) for v, ratios in waits.items()}
    calm = threads > 1 or any(low <= SPOILED for low in least.values())
    allowed = {v: SPOILED * (max(1.0, low) if calm else 1.0) for v, low in least.items()}
    rounds = min((len(ratios) for ratios in waits.values()), default=0)
    return [r for r in range(rounds) if any(waits[v][r] > allowed[v] for v in waits)]


def is_contaminated(dropped: int, rounds: int) -> bool:
    """Whether a block has lost too many rounds of a cell to be used."""
    return dropped * 3 >= rounds and dropped > 0
