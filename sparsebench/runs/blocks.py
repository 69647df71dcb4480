"""What one block says: a variant's time in a cell, and the log ratio of two variants."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from operator import truediv
from typing import TypeVar

import msgspec

from sparsebench.runs.records import TIMED, Timing, cell_key
from sparsebench.runs.stats import median

T = TypeVar("T", bound=Timing)
Rows = dict[tuple[str, str], dict[int, T]]  # (cell key, variant) -> block -> sample


def by_row(samples: Iterable[T]) -> Rows[T]:
    """Samples by (cell, variant), then by block; of two with one block the first stands."""
    rows: Rows[T] = defaultdict(dict)
    keys: dict[tuple[str, int], str] = {}  # samples that were read share their cells: a key is made once for each
    samples = tuple(samples)  # all alive meanwhile, so that an id stays one cell's
    for sample in samples:
        place = sample.case, id(sample.cell)
        key = keys.get(place) or keys.setdefault(place, cell_key(sample.case, sample.cell))
        rows[key, sample.variant].setdefault(sample.block, sample)
    return dict(rows)


def kept(sample: Timing) -> list[float]:
    """Nanoseconds of one repetition in every round that counts; none unless the block is `ok`."""
    if sample.status != "ok":
        return []
    times = sample.t_ns
    if not sample.dropped and times and min(times) > 0:
        return times  # as nearly always
    dropped = set(sample.dropped)
    return [t for i, t in enumerate(times) if i not in dropped and t > 0]


def loosened(sample: T) -> T:
    """A spoiled block as if it were good: for a rough idea where there is no better block.

    Its dropped rounds stay out, unless there are no others.
    """
    if sample.status not in TIMED:
        return sample
    dropped = sample.dropped if len(set(sample.dropped)) < len(sample.t_ns) else []
    return msgspec.structs.replace(sample, status="ok", dropped=dropped)


def block_ns(sample: Timing) -> float | None:
    """The block's time: the median over the rounds kept."""
    times = kept(sample)
    return median(times) if times else None


def times_of(blocks: Mapping[int, Timing]) -> dict[int, float]:
    """Block -> its time, for every block that has one, in order."""
    return {block: ns for block in sorted(blocks) if (ns := block_ns(blocks[block])) is not None}


def log_ratio(baseline: Timing, variant: Timing) -> float | None:
    """The block's value of a pair: median over rounds of log(t_baseline / t_variant); positive: faster.

    Rounds pair only when both were timed in one session and equally often; else the medians do.
    None if either has no rounds left.
    """
    mine, theirs = kept(baseline), kept(variant)
    if not mine or not theirs:
        return None
    if baseline.session == variant.session and len(baseline.t_ns) == len(variant.t_ns):
        if len(mine) == len(theirs) == len(baseline.t_ns):
            return _median_log(map(truediv, mine, theirs))
        dropped = {*baseline.dropped, *variant.dropped}
        pairs = enumerate(zip(baseline.t_ns, variant.t_ns, strict=True))
        ratios = [b / v for i, (b, v) in pairs if i not in dropped and b > 0 and v > 0]
        return _median_log(ratios) if ratios else None
    return math.log(median(mine) / median(theirs))


def _median_log(ratios: Iterable[float]) -> float:
    """The median of the logarithms, of which only those in the middle are worked out."""
    ordered = sorted(ratios)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return math.log(ordered[middle])
    return math.log(ordered[middle - 1] * ordered[middle]) / 2


def log_ratios(baseline: Mapping[int, Timing], variant: Mapping[int, Timing]) -> dict[int, float]:
    """Block -> value of the pair, for every block in which both have a time."""
    if baseline is variant:
        return dict.fromkeys(times_of(variant), 0.0)
    both = sorted(baseline.keys() & variant.keys())
    return {b: value for b in both if (value := log_ratio(baseline[b], variant[b])) is not None}
