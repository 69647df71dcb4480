"""The exact distributions agree with counting every case and with SciPy; the intervals cover what they promise."""

import itertools
import math
import random

import pytest
from scipy import stats

from sparsebench.runs.stats import (
    binomial_interval,
    geometric_mean,
    hodges_lehmann,
    hodges_lehmann_two,
    median,
    rank_sum_c,
    signed_rank_c,
)

ALPHAS = (0.01, 0.02, 0.05, 0.2)


def _largest(values: list[int], alpha: float) -> int:
    """Largest c with P(value <= c) <= alpha/2 where every value is equally likely; -1 if none."""
    able = [c for c in range(max(values) + 1) if sum(v <= c for v in values) / len(values) <= alpha / 2]
    return max(able, default=-1)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_signed_rank_c_counts_every_sign(alpha):
    for k in range(1, 11):
        sums = [sum(r for r, up in enumerate(signs, start=1) if up) for signs in itertools.product((0, 1), repeat=k)]
        assert signed_rank_c(k, alpha) == _largest(sums, alpha)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_rank_sum_c_counts_every_arrangement(alpha):
    for m, n in itertools.product(range(1, 6), repeat=2):
        sums = [sum(ranks) - m * (m - 1) // 2 for ranks in itertools.combinations(range(m + n), m)]
        assert rank_sum_c(m, n, alpha) == _largest(sums, alpha)


def test_critical_values_of_the_tables():
    # Hollander, Wolfe & Chicken, tables A.4 and A.6: two-sided 1 %
    assert [signed_rank_c(k, 0.01) for k in (7, 8, 10, 15, 20)] == [-1, 0, 3, 15, 37]
    assert [rank_sum_c(n, n, 0.01) for n in (4, 5, 8, 10)] == [-1, 0, 7, 16]


def test_intervals_are_where_scipys_p_values_cross_alpha():
    draw = random.Random(1)
    x, y = [draw.gauss(0, 1) for _ in range(11)], [draw.gauss(0.5, 1) for _ in range(12)]
    _, low, high = hodges_lehmann(x)
    for end in (low, high):
        inside, outside = (end + 1e-9, end - 1e-9) if end == low else (end - 1e-9, end + 1e-9)
        assert stats.wilcoxon([v - inside for v in x], method="exact").pvalue > 0.01
        assert stats.wilcoxon([v - outside for v in x], method="exact").pvalue <= 0.01
    _, low, high = hodges_lehmann_two(x, y)
    for end in (low, high):
        inside, outside = (end + 1e-9, end - 1e-9) if end == low else (end - 1e-9, end + 1e-9)
        assert stats.mannwhitneyu(y, [v + inside for v in x], method="exact").pvalue > 0.01
        assert stats.mannwhitneyu(y, [v + outside for v in x], method="exact").pvalue <= 0.01


def test_estimates():
    assert hodges_lehmann([1.0, 2.0, 30.0], alpha=0.5)[0] == 8.75  # of 1, 1.5, 2, 15.5, 16, 30
    assert hodges_lehmann_two([1.0, 2.0], [11.0, 12.0])[0] == 10.0
    assert hodges_lehmann_two([3.0], [1.0]) == (-2.0, -math.inf, math.inf)
    assert geometric_mean([2.0, 0.5, 8.0]) == pytest.approx(2.0)
    assert median([3, 1, 2]) == 2
    with pytest.raises(ValueError, match="at least one value"):
        hodges_lehmann_two([], [1.0])


def _coverage(interval, n: int = 10, trials: int = 1500) -> float:
    draw = random.Random(7)
    inside = 0
    for _ in range(trials):
        x, y = ([draw.gauss(0, 1) for _ in range(n)] for _ in range(2))
        low, high = interval(x, [v + 3 for v in y])
        inside += low <= 3 <= high
    return inside / trials


def test_the_two_sample_interval_covers_what_it_says():
    assert 0.985 <= _coverage(lambda x, y: hodges_lehmann_two(x, y)[1:]) <= 1


def test_twin_a_range_of_differences_of_medians_does_not_cover():
    def naive(x, y):
        shift = median(y) - median(x)
        spread = (max(x) - min(x)) / len(x)
        return shift - spread, shift + spread

    assert _coverage(naive) < 0.9


def test_the_one_sample_interval_covers_what_it_says():
    assert 0.985 <= _coverage(lambda x, y: hodges_lehmann([b - a for a, b in zip(x, y, strict=True)])[1:]) <= 1


@pytest.mark.parametrize(
    ("hits", "trials"), [(0, 200), (2, 200), (60, 60), (55, 60), (1, 1), (100, 240), (9, 5000), (4990, 5000)]
)
def test_the_interval_of_a_share_is_that_of_scipy(hits: int, trials: int) -> None:
    low, high = binomial_interval(hits, trials)
    exact = stats.binomtest(hits, trials).proportion_ci(0.95, "exact")
    assert (low, high) == pytest.approx((exact.low, exact.high), abs=1e-9)
