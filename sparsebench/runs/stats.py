"""Small exact statistics over block values: Hodges-Lehmann estimates with exact rank intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

__all__ = [
    "binomial_interval", "geometric_mean", "hodges_lehmann", "hodges_lehmann_two", "median", "rank_sum_c",
    "signed_rank_c",
]  # fmt: skip

Interval = tuple[float, float, float]  # estimate, low, high


def median(values: Iterable[float]) -> float:
    """The middle value, or the mean of the two in the middle; `ValueError` if there is none."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("a median needs at least one value")
    middle = len(ordered) // 2
    return (ordered[middle] + ordered[~middle]) / 2  # of an odd number the two are one


@lru_cache(maxsize=256)
def signed_rank_c(k: int, alpha: float) -> int:
    """Largest c with P(W+ <= c) <= alpha/2 for k pairs; -1 if none (exact Wilcoxon distribution)."""
    counts = [1] + [0] * (k * (k + 1) // 2)
    for r in range(1, k + 1):
        for s in range(len(counts) - 1, r - 1, -1):
            counts[s] += counts[s - r]
    return _largest_c(counts, 2**k, alpha)


@lru_cache(maxsize=256)
def rank_sum_c(m: int, n: int, alpha: float) -> int:
    """Largest c with P(U <= c) <= alpha/2 for samples of m and n; -1 if none (exact Mann-Whitney).

    The number of ways to reach U = u is the coefficient of q^u in the Gaussian binomial (m+n choose m): the
    product over i = 1..m of (1 - q^(n+i)) / (1 - q^i).
    """
    counts = [1] + [0] * (m * n)
    for i in range(1, m + 1):
        for u in range(len(counts) - 1, n + i - 1, -1):
            counts[u] -= counts[u - n - i]
        for u in range(i, len(counts)):
            counts[u] += counts[u - i]
    return _largest_c(counts, math.comb(m + n, m), alpha)


def _largest_c(counts: Sequence[int], total: int, alpha: float) -> int:
    """Largest c whose lower tail holds at most alpha/2 of `total`."""
    tail = 0
    for c, ways in enumerate(counts):
        tail += ways
        if tail / total > alpha / 2:
            return c - 1
    return len(counts) - 1


def hodges_lehmann(x: Sequence[float], alpha: float = 0.01) -> Interval:
    """(estimate, low, high) of the centre of symmetric x; the interval is exact, infinite if x is too short.

    Hollander, Wolfe & Chicken, Nonparametric Statistical Methods, 3rd ed., sections 3.2 and 3.3.
    """
    walsh = sorted((a + b) / 2 for i, a in enumerate(x) for b in x[i:])
    return _centre(walsh, signed_rank_c(len(x), alpha))


def hodges_lehmann_two(x: Sequence[float], y: Sequence[float], alpha: float = 0.01) -> Interval:
    """(estimate, low, high) of the shift from x to y (positive: y is larger); the interval is exact.

    Hollander, Wolfe & Chicken, Nonparametric Statistical Methods, 3rd ed., sections 4.2 and 4.3.
    """
    shifts = sorted(b - a for a in x for b in y)
    return _centre(shifts, rank_sum_c(len(x), len(y), alpha))


def _centre(ordered: Sequence[float], c: int) -> Interval:
    """The median of ordered values, and the (c+1)-th from either end."""
    n = len(ordered)
    if not n:
        raise ValueError("an estimate needs at least one value a side")
    mid = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    return (mid, -math.inf, math.inf) if c < 0 else (mid, ordered[c], ordered[n - 1 - c])


def geometric_mean(ratios: Sequence[float]) -> float:
    """exp of the mean log of positive ratios."""
    return math.exp(math.fsum(map(math.log, ratios)) / len(ratios))


def binomial_interval(hits: int, trials: int, alpha: float = 0.05) -> tuple[float, float]:
    """The exact interval of a probability of which `hits` of `trials` came out (Clopper & Pearson 1934)."""
    low = _root(lambda p: 1 - _binomial_cdf(hits - 1, trials, p) - alpha / 2) if hits else 0.0
    high = _root(lambda p: alpha / 2 - _binomial_cdf(hits, trials, p)) if hits < trials else 1.0
    return low, high


def _binomial_cdf(k: int, n: int, p: float) -> float:
    if not 0 < p < 1:
        return float(k >= (n if p else 0))
    logs = (_log_choose(n, i) + i * math.log(p) + (n - i) * math.log1p(-p) for i in range(k + 1))
    return math.fsum(map(math.exp, logs))


def _log_choose(n: int, k: int) -> float:
    """log of n over k, which itself leaves the range of a float from n = 1030 on."""
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _root(rising: Callable[[float], float]) -> float:
    """Where a rising function on [0, 1] crosses 0."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return (low + high) / 2
