"""Two variants that were timed side by side: faster, slower, same or inconclusive, from the values of their blocks.

A block's value is the median over rounds of log(time of B / time of A). Blocks are looked at when there are 10, 15, 20
and 30 of them; what is decided is left alone. The interval is that of Hodges and Lehmann, exact at 99 %: no more than
one comparison in a hundred of a thing with itself may come out as a change, and the margin makes it far fewer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import msgspec

from sparsebench.runs.stats import hodges_lehmann, median

Call = Literal["faster", "slower", "same", "inconclusive"]
LOOKS = (10, 15, 20, 30)  # numbers of good blocks
ALPHA = 0.01
FLOOR_NS = 20_000.0  # a change of less than this is not one, whatever its share


class Judgement(msgspec.Struct, frozen=True):
    """What the blocks say of B against A. `change` is time of B over time of A: 1.06 is 6 % slower."""

    call: Call
    change: float
    low: float | None  # of the interval; None: not bounded by so few blocks
    high: float | None
    blocks: int
    margin: float  # that was used, the floor heeded


class Limits(NamedTuple):
    """Log ratios: what lies below `faster` or above `slower` is a change."""

    faster: float
    slower: float


def limits_of(margin: float, ns: float) -> Limits:
    """Of `margin` (0.03 for 3 %), but no less than `FLOOR_NS` of a time of `ns`, which may be all of it."""
    share = FLOOR_NS / ns if ns > 0 else math.inf
    least = math.log1p(-share) if share < 1 else -math.inf
    return Limits(min(-math.log1p(margin), least), max(math.log1p(margin), math.log1p(share)))


def called(low: float, high: float, limits: Limits) -> Call:
    """The verdict of an interval of log ratios: positive is slower."""
    if low > limits.slower:
        return "slower"
    if high < limits.faster:
        return "faster"
    return "same" if limits.faster <= low and high <= limits.slower else "inconclusive"


def judge_pairs(values: Sequence[float], margin: float, ns: float, alpha: float = ALPHA) -> Judgement:
    """The verdict over block values log(time of B / time of A); `ns` is the time of A. Needs at least one value."""
    estimate, low, high = hodges_lehmann(values, alpha)
    limits = limits_of(margin, ns)
    margin = math.expm1(limits.slower)
    return Judgement(called(low, high, limits), math.exp(estimate), _bound(low), _bound(high), len(values), margin)


def _bound(log: float) -> float | None:
    return math.exp(log) if math.isfinite(log) else None


def look(values: Sequence[float], margin: float, ns: float, looks: Sequence[int] = LOOKS) -> Judgement | None:
    """The verdict, if so many blocks are a moment to look at them and it is a decision; at the last look any verdict.

    None: go on. Between two looks nothing is decided, or every block would be a chance to be wrong.
    """
    if len(values) not in looks:
        return None
    judged = judge_pairs(values, margin, ns)
    return judged if judged.call != "inconclusive" or len(values) >= looks[-1] else None


def settled(
    values: Sequence[float], margin: float, ns: Sequence[float], looks: Sequence[int] = LOOKS
) -> Judgement | None:
    """What looking at ever more of the values came to: the first decision, or the verdict of the last look.

    `ns`: the time of A in each block; a look heeds those of its own blocks, so that later ones change nothing.
    None: they are too few for that; go on.
    """
    counts = [count for count in looks if count <= len(values)]
    moments = (look(values[:count], margin, median(ns[:count]), looks) for count in counts)
    return next((judged for judged in moments if judged is not None), None)
