"""Steps in a series: where the level changed for good, or for a while, found with a stated chance of a false alarm.

The values of a series are one number for each run. The statistic is that of a change of the mean, the largest
S_k^2 / (k (n - k)) over all places k, S_k being the sum of the first k deviations from the mean; what is a large one is
worked out from the series itself, by permuting it: where there is no step, every order of the values is as likely as
the one seen, whatever their distribution. So at most `ALPHA` of series without a step show one, over all places at
once, heavy tails or not. The price is that few runs cannot show a step: it takes two on either side and a dozen in all,
or four on either side. (Permutation tests of a change point: Antoch & Huskova, Statistics & Probability Letters 2001.)

A slowdown that was mended hides from that statistic: its own ends are the noise it is measured by. Where no step is
found that matters, a stretch between two places is looked for (Olshen et al., Biostatistics 2004), at part of `ALPHA`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise

import msgspec

from sparsebench.runs.stats import median

ALPHA = 0.05
FOR_STRETCHES = 0.01  # of ALPHA
LEAST = 2  # runs on either side: one that stands alone is an outlier, not a step
PERMUTATIONS = 1999

Scores = Callable[[Sequence[float]], list[float]]  # deviations -> the statistic at every place


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """The level changed between the values `at` - 1 and `at`; `change` is new level - old level, of medians."""

    at: int
    change: float
    p: float


def steps(values: Sequence[float], least: float = 0.0) -> list[Step]:
    """All steps of at least `least` in size, in order: one is looked for, then more on either side of it.

    What was found later may have taken from what was found first: the smallest goes until all are large enough.
    """
    cuts = sorted(_cuts(list(values), 0, least))
    while True:
        found = _between(values, cuts)
        small = min(found, key=lambda step: abs(step.change), default=None)
        if small is None or abs(small.change) >= least:
            return found
        cuts = [cut for cut in cuts if cut[0] != small.at]


def _between(values: Sequence[float], cuts: Sequence[tuple[int, float]]) -> list[Step]:
    """The steps between the parts that these cuts make."""
    edges = [0, *(at for at, _ in cuts), len(values)]
    levels = [median(values[a:b]) for a, b in pairwise(edges)] if cuts else []
    return [Step(at=at, change=levels[i + 1] - levels[i], p=p) for i, (at, p) in enumerate(cuts)]


def _cuts(values: list[float], start: int, least: float) -> list[tuple[int, float]]:
    """(place, p) of each step in a part of a series that begins at `start`."""
    for places, p in find(values):
        edges = [0, *places, len(values)]
        parts = [values[a:b] for a, b in pairwise(edges)]
        if max(abs(median(b) - median(a)) for a, b in pairwise(parts)) >= least:
            inner = [cut for edge, part in zip(edges, parts, strict=False) for cut in _cuts(part, start + edge, least)]
            return [*((start + place, p) for place in places), *inner]
    return []


def find(values: Sequence[float]) -> Iterator[tuple[tuple[int, ...], float]]:
    """The place of the most marked step, then both ends of the most marked stretch, with p; what chance makes is not.

    The second is of use where the first is too small to matter: one end of a stretch, measured by what lies beyond.
    """
    count = len(values)
    middle = math.fsum(values) / max(1, count)
    centred = [value - middle for value in values]
    ends = [(k,) for k in range(LEAST, count - LEAST + 1)]
    pairs = [(i, j) for i in range(LEAST, count - 2 * LEAST + 1) for j in range(i + LEAST, count - LEAST + 1)]
    if ends:
        best, p = _tested(centred, _step_scores(count), ALPHA - FOR_STRETCHES)
        yield from [] if best is None else [(ends[best], p)]
    if pairs:
        best, p = _tested(centred, _stretch_scores(count, pairs), FOR_STRETCHES)
        yield from [] if best is None else [(pairs[best], p)]


def _step_scores(count: int) -> Scores:
    """The statistic at every place that leaves `LEAST` values on either side."""
    weights = [1 / (k * (count - k)) for k in range(LEAST, count - LEAST + 1)]
    ends = slice(LEAST - 1, count - LEAST)
    return lambda centred: [s * s * w for s, w in zip(list(accumulate(centred))[ends], weights, strict=True)]


def _stretch_scores(count: int, pairs: Sequence[tuple[int, int]]) -> Scores:
    """The same of every stretch between two places against all else."""
    weighted = [(i - 1, j - 1, 1 / ((j - i) * (count - j + i))) for i, j in pairs]

    def scores(centred: Sequence[float]) -> list[float]:
        sums = list(accumulate(centred))
        return [(sums[j] - sums[i]) ** 2 * w for i, j, w in weighted]

    return scores


def _tested(centred: Sequence[float], scores: Scores, alpha: float) -> tuple[int | None, float]:
    """(index of the largest score, p), the index None where more than `alpha` of orders have one as large.

    p is the share among random orders, the one seen among them; the draws are always the same. It stops where that
    share can no longer be small, and says then what it was.
    """
    seen = scores(centred)
    largest = max(seen) * (1 - 1e-9)  # sums in another order round otherwise
    if largest <= 0:
        return None, 1.0
    draw = random.Random(len(centred))
    order = list(centred)
    extreme = 1
    for tried in range(1, PERMUTATIONS + 1):
        draw.shuffle(order)
        extreme += max(scores(order)) >= largest
        if extreme > alpha * (PERMUTATIONS + 1):
            return None, extreme / (tried + 1)
    return seen.index(max(seen)), extreme / (PERMUTATIONS + 1)
