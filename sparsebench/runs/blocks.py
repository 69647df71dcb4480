"""What one block says: a variant's time in a cell, and the log ratio of two variants."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from operator import truediv
from typing import TypeVar

import msgspec

from sparsebench.runs.records import TIMED, Timing, cell_key
from sparsebench.runs.stats import median

FAR, NEAR = 1e100, 1e-100  # nothing takes so many times as long as another

T = TypeVar("T", bound=Timing)
Rows = Mapping[tuple[str, str], Mapping[int, T]]  # (cell key, variant) -> block -> sample


def by_row(samples: Iterable[T]) -> dict[tuple[str, str], dict[int, T]]:
    """Samples by (cell, variant), then by block; of two with one block the first stands."""
    rows: dict[tuple[str, str], dict[int, T]] = defaultdict(dict)
    for sample in samples:
        rows[cell_key(sample.case, sample.cell), sample.variant].setdefault(sample.block, sample)
    return dict(rows)


def kept(sample: Timing) -> list[float]:
    """Nanoseconds of one repetition in every round that counts; none unless the block is `ok`."""
    if sample.status != "ok":
        return []
    return _without(sample.t_ns, sample.dropped) if sample.dropped else sample.t_ns


def _without(times: list[float], rounds: Collection[int]) -> list[float]:
    return [t for i, t in enumerate(times) if i not in rounds]


def timeless_rounds(sample: Timing) -> list[int]:
    """Rounds in which a clock went backwards or stood still. Whoever makes or reads a sample drops them."""
    return [i for i, t in enumerate(sample.t_ns) if t <= 0]


def loosened(sample: T) -> T:
    """A spoiled block as if it were good: for a rough idea where there is no better block.

    Its dropped rounds stay out, unless there are no others.
    """
    if sample.status not in TIMED:
        return sample
    dropped = sample.dropped if len(set(sample.dropped)) < len(sample.t_ns) else timeless_rounds(sample)
    return msgspec.structs.replace(sample, status="ok", dropped=dropped)


def block_ns(sample: Timing) -> float | None:
    """The block's time: the median over the rounds kept."""
    times = kept(sample)
    return median(times) if times else None


def times_of(blocks: Mapping[int, Timing]) -> dict[int, float]:
    """Block -> its time, for every block that has one, in order."""
    return {block: median(times) for block in sorted(blocks) if (times := kept(blocks[block]))}


def log_ratio(baseline: Timing, variant: Timing) -> float | None:
    """The block's value of a pair: median over rounds of log(t_baseline / t_variant); positive: faster.

    Rounds pair only when both were timed in one session and equally often; else the medians do.
    None if either has no rounds left, or where the two are further apart than `FAR`.
    """
    mine, theirs = kept(baseline), kept(variant)
    if not mine or not theirs:
        return None
    if baseline.session != variant.session or len(baseline.t_ns) != len(variant.t_ns):
        mine, theirs = [median(mine)], [median(theirs)]
    elif baseline.dropped or variant.dropped:
        dropped = {*baseline.dropped, *variant.dropped}
        mine, theirs = _without(baseline.t_ns, dropped), _without(variant.t_ns, dropped)
    ratios = sorted(map(truediv, mine, theirs))
    if not ratios:
        return None
    middle = len(ratios) // 2
    low, high = ratios[~middle], ratios[middle]  # of an odd number the two are one
    # What is further apart is no ratio of times, but a broken file, and would later leave the range of a float.
    return math.log(low * high) / 2 if low > NEAR and high < FAR else None


def log_ratios(baseline: Mapping[int, Timing], variant: Mapping[int, Timing]) -> dict[int, float]:
    """Block -> value of the pair, for every block in which both have a time."""
    if baseline is variant:
        return {b: 0.0 for b in sorted(variant) if kept(variant[b])}
    both = sorted(baseline.keys() & variant.keys())
    return {b: value for b in both if (value := log_ratio(baseline[b], variant[b])) is not None}
