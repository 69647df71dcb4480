"""Verdicts of things timed side by side: exact at the edges, and right as often as promised on simulated noise."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from statistics import mean, median

import pytest
from scipy import stats

from sparsebench.runs.verdicts import ALPHA, FLOOR_NS, LOOKS, Limits, called, judge_pairs, limits_of, look, settled

NS, MARGIN, ROUNDS, TRIALS = 5e6, 0.03, 12, 400


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.031, 0.2, "slower"),
        (-0.2, -0.031, "faster"),
        (-0.03, 0.03, "same"),
        (-0.01, 0.031, "inconclusive"),
        (-math.inf, math.inf, "inconclusive"),
    ],
)
def test_where_the_interval_lies_decides(low: float, high: float, verdict: str) -> None:
    assert called(low, high, Limits(-0.03, 0.03)) == verdict


def test_a_change_of_less_than_the_floor_is_none() -> None:
    assert limits_of(0.03, 1e9) == (-math.log1p(0.03), math.log1p(0.03))
    assert limits_of(0.03, FLOOR_NS) == (-math.inf, math.log(2)), "no time is 20 us less than 20 us"
    for ns in (30e3, 100e3, 500e3):
        low, high = limits_of(0.03, ns)
        assert ns - ns * math.exp(low) == pytest.approx(FLOOR_NS), "20 us less"
        assert ns * math.exp(high) - ns == pytest.approx(FLOOR_NS), "20 us more"
    assert judge_pairs([0.1] * 10, 0.03, FLOOR_NS).call == "same"  # a tenth of 20 us
    assert judge_pairs([0.1] * 10, 0.03, 1e9).call == "slower"
    assert judge_pairs([math.log(17 / 30)] * 10, 0.03, 30e3).call == "same"  # 13 us less
    assert judge_pairs([math.log(30 / 17)] * 10, 0.03, 17e3).call == "same"  # and the other way round
    assert judge_pairs([math.log(9 / 30)] * 10, 0.03, 30e3).call == "faster"
    assert judge_pairs([0.1] * 10, 0.03, 0.0).margin == math.inf


def test_only_looks_decide() -> None:
    clear = [0.2] * 30
    assert [count for count in range(1, 31) if look(clear[:count], MARGIN, NS)] == list(LOOKS)
    torn = [-0.2, 0.2] * 15
    assert [look(torn[:count], MARGIN, NS) for count in LOOKS[:-1]] == [None] * 3
    last = look(torn, MARGIN, NS)
    assert last is not None and last.call == "inconclusive"


def test_few_values_bound_nothing() -> None:
    judged = judge_pairs([0.5, 0.5], MARGIN, NS)
    assert (judged.call, judged.low, judged.high, judged.blocks) == ("inconclusive", None, None, 2)


class Noise:
    """Times as on a shared machine: they drift together, each process has its own speed, bursts hit single samples."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.level = 0.0

    def block(self, slowdown: float) -> tuple[list[float], list[float]]:
        """Nanoseconds of A and B in the rounds of one block of fresh processes."""
        a, b = self.draw.gauss(0, 0.012), self.draw.gauss(0, 0.012) + math.log1p(slowdown)
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(ROUNDS):
            self.level = 0.98 * self.level + self.draw.gauss(0, 0.01)  # wanders by 10 % in minutes
            for side, speed in zip(times, (a, b), strict=True):
                burst = self.draw.expovariate(4) if self.draw.random() < 0.05 else 0.0
                side.append(NS * math.exp(self.level + speed + self.draw.gauss(0, 0.01) + burst))
        return times

    def blocks(self, slowdown: float) -> Iterator[tuple[list[float], list[float]]]:
        while True:
            yield self.block(slowdown)


def ours(noise: Noise, slowdown: float) -> str:
    """Median of paired rounds in each block, looks at 10, 15, 20 and 30 blocks."""
    values: list[float] = []
    for a, b in noise.blocks(slowdown):
        values.append(median(math.log(y / x) for x, y in zip(a, b, strict=True)))
        judged = look(values, MARGIN, NS)
        if judged is not None:
            return judged.call
    raise AssertionError


def pooled_t_test(noise: Noise, slowdown: float) -> str:
    """All samples of five processes of either side, one side after the other, as if each were independent."""
    a = [t for _ in range(5) for t in noise.block(slowdown)[0]]
    b = [t for _ in range(5) for t in noise.block(slowdown)[1]]
    return _changed(stats.ttest_ind(a, b).pvalue < 0.01, mean(b) > mean(a))


def u_test_in_one_process(noise: Noise, slowdown: float) -> str:
    """One process for either side, sixty samples."""
    a = [t for _ in range(5) for t in _same(noise, 0)]
    b = [t for _ in range(5) for t in _same(noise, slowdown)]
    return _changed(stats.mannwhitneyu(a, b).pvalue < 0.01, median(b) > median(a))


def five_per_cent(noise: Noise, slowdown: float) -> str:
    """The ratio of two medians, one process each, beyond 5 %."""
    ratio = median(_same(noise, slowdown)) / median(_same(noise, 0))
    return _changed(abs(ratio - 1) > 0.05, ratio > 1)


def _same(noise: Noise, slowdown: float) -> list[float]:
    return noise.block(slowdown)[1]


def _changed(told: bool, up: bool) -> str:
    return ("slower" if up else "faster") if told else "same"


def shares(rule: Callable[[Noise, float], str], slowdown: float) -> dict[str, float]:
    noise = Noise(seed=1)
    seen = [rule(noise, slowdown) for _ in range(TRIALS)]
    return {verdict: seen.count(verdict) / TRIALS for verdict in ("slower", "faster")}


def test_on_simulated_noise_we_are_right_as_often_as_promised() -> None:
    alone, changed = shares(ours, 0.0), shares(ours, 0.06)
    assert alone["slower"] + alone["faster"] <= 0.01
    assert changed["slower"] >= 0.95 and changed["faster"] == 0
    better = shares(ours, -0.06)
    assert better["faster"] >= 0.95 and better["slower"] == 0


@pytest.mark.parametrize("rule", [pooled_t_test, u_test_in_one_process, five_per_cent])
def test_the_usual_rules_are_not(rule: Callable[[Noise, float], str]) -> None:
    """The twin: with nothing changed each of them reports changes, far more often than the one in a hundred it says."""
    alone = shares(rule, 0.0)
    assert alone["slower"] + alone["faster"] > 0.05


def test_the_interval_covers_as_often_as_it_says() -> None:
    """10,000 times ten blocks, of a symmetric noise with heavy tails."""
    draw = random.Random(2)
    inside = 0
    for _ in range(10_000):
        judged = judge_pairs([draw.gauss(0, 0.01) * (3 if draw.random() < 0.1 else 1) for _ in range(10)], MARGIN, NS)
        assert judged.low is not None and judged.high is not None
        inside += judged.low <= 1.0 <= judged.high
    assert abs(inside / 10_000 - (1 - ALPHA)) <= 0.01


def test_later_blocks_do_not_change_what_a_look_saw() -> None:
    """The floor is a share of the time of A, here 4 % of the ten blocks looked at; later ones are half as slow."""
    values = [0.05] * 10 + [0.0] * 4
    assert settled(values, 0.03, [500e3] * 10 + [100e3] * 4) == settled(values[:10], 0.03, [500e3] * 10)
    assert settled(values, 0.03, [100e3] * 14) != settled(values, 0.03, [500e3] * 14)
