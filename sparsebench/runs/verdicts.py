"""Two variants that were timed side by side: faster, slower, same or inconclusive, from the values of their blocks.

A block's value is the median over rounds of log(time of B / time of A). Blocks are looked at when there are 10, 15, 20
and 30 of them; what is decided is left alone. The interval is that of Hodges and Lehmann, exact at 99 %: no more than
one comparison in a hundred of a thing with itself may come out as a change, and the margin makes it far fewer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import msgspec

from sparsebench.runs.stats import hodges_lehmann

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


def limit_of(margin: float, ns: float) -> float:
    """The log ratio that is a change: of `margin` (0.03 for 3 %), but no less than `FLOOR_NS` of a time of `ns`."""
    return max(math.log1p(margin), math.log1p(FLOOR_NS / ns) if ns > 0 else math.inf)


def called(low: float, high: float, limit: float) -> Call:
    """The verdict of an interval of log ratios: positive is slower."""
    if low > limit:
        return "slower"
    if high < -limit:
        return "faster"
    return "same" if -limit <= low and high <= limit else "inconclusive"


def judge_pairs(values: Sequence[float], margin: float, ns: float, alpha: float = ALPHA) -> Judgement:
    """The verdict over block values log(time of B / time of A); `ns` is the time of A. Needs at least one value."""
    estimate, low, high = hodges_lehmann(values, alpha)
    limit = limit_of(margin, ns)
    call, margin = called(low, high, limit), math.expm1(limit)
    return Judgement(call, math.exp(estimate), _bound(low), _bound(high), len(values), margin)


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


def settled(values: Sequence[float], margin: float, ns: float, looks: Sequence[int] = LOOKS) -> Judgement | None:
    """What looking at ever more of the values came to: the first decision, or the verdict of the last look.

    None: they are too few for that; go on.
    """
    moments = (look(values[:count], margin, ns, looks) for count in looks if count <= len(values))
    return next((judged for judged in moments if judged is not None), None)
