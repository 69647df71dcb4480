"""Steps in series: none where there is none in 95 of 100, where one is it is found, and at its place."""

import math
import random
from itertools import combinations

import pytest

from sparsebench.runs.steps import find, steps

NOISE = 0.015  # of the medians of runs, as measured between fresh processes
STEP = 0.0953  # log of 10 %


def series(seed, count=16, at=None, noise=NOISE, heavy=False):
    draw = random.Random(seed)
    wild = [draw.random() < 0.1 for _ in range(count)]
    return [
        draw.gauss(STEP if at is not None and i >= at else 0, noise * (8 if heavy and wild[i] else 1))
        for i in range(count)
    ]


def false_alarms(find, heavy, tried=1000):
    return sum(bool(find(series(seed, count=12, heavy=heavy))) for seed in range(tried)) / tried


def at_most_one_in_twenty(share):
    return share <= 0.05


@pytest.mark.parametrize("heavy", [False, True], ids=["normal", "heavy tails"])
def test_a_series_without_a_step_shows_none(heavy):
    assert at_most_one_in_twenty(false_alarms(lambda values: [*find(values)], heavy))


def naive(values):
    """What is often done: a place where the two means differ by two standard errors, whichever place looks best."""
    for k in range(2, len(values) - 1):
        left, right = values[:k], values[k:]
        gap = abs(sum(left) / len(left) - sum(right) / len(right))
        if gap > 2 * NOISE * (1 / len(left) + 1 / len(right)) ** 0.5:
            return k
    return None


def test_twin_looking_at_every_place_without_paying_for_it_alarms():
    assert not at_most_one_in_twenty(false_alarms(naive, False))


@pytest.mark.parametrize(("count", "at"), [(8, 4), (12, 2), (12, 6), (12, 10), (20, 5), (20, 18)])
def test_a_step_of_a_tenth_is_found_within_one_run(count, at):
    found = [steps(series(seed, count, at), least=0.03) for seed in range(40)]
    assert sum(any(abs(step.at - at) <= 1 for step in each) for each in found) >= 38
    changes = [each[0].change for each in found if len(each) == 1]
    assert sum(changes) / len(changes) == pytest.approx(STEP, abs=0.01)


def test_the_share_of_orders_is_that_of_all_orders():
    """Eight values, four of them high: of the 70 ways to place the high ones, two look as extreme."""
    values = [0.0, 0.001, -0.001, 0.0005, 1.0, 1.001, 0.999, 1.0005]
    ways = [set(high) for high in combinations(range(8), 4)]
    extreme = sum(high in ({0, 1, 2, 3}, {4, 5, 6, 7}) for high in ways)
    places, p = next(find(values))
    assert places == (4,)
    assert p == pytest.approx(extreme / len(ways), abs=0.01)


def test_one_run_that_stands_out_is_no_step():
    values = series(1, 20)
    values[10] += 1.0
    assert steps(values) == []


def test_a_slowdown_that_was_mended_has_two_ends():
    values = [v + (0.3 if 8 <= i < 16 else 0) for i, v in enumerate(series(3, 24))]
    first, second = steps(values)
    assert (first.at, second.at) == (8, 16)
    assert first.change > 0.28
    assert second.change < -0.28


def test_two_steps_up():
    values = [v + 0.3 * (i >= 8) + 0.3 * (i >= 16) for i, v in enumerate(series(4, 24))]
    assert [step.at for step in steps(values)] == [8, 16]
    assert [step.change for step in steps(values)] == pytest.approx([0.3, 0.3], abs=0.03)


def test_a_step_smaller_than_what_matters_is_none():
    values = [0.001 * (i >= 10) + 1e-5 * (i % 3) for i in range(20)]
    assert [step.at for step in steps(values)] == [10]
    assert steps(values, least=0.03) == []


def test_a_step_that_a_later_one_made_small_is_none():
    """The cut at 20 is tested against the median of all before it; with the one at 10 only 2.4 % are left of it."""
    draw = random.Random(6)
    values = [level + draw.gauss(0, 1e-4) for level in [0.0] * 10 + [0.031] * 10 + [0.055] * 60]
    assert [step.at for step in steps(values)] == [10, 20]
    [step] = steps(values, least=math.log1p(0.03))
    assert (step.at, step.change) == (10, pytest.approx(0.055, abs=1e-3))


@pytest.mark.parametrize("values", [[], [1.0], [1.0] * 3, [1.0] * 20])
def test_too_few_or_all_the_same_show_nothing(values):
    assert steps(values) == []


def test_the_same_series_gives_the_same_answer():
    assert steps(series(5, at=8)) == steps(series(5, at=8))


@pytest.mark.parametrize("parts", [(30, 12, 18), (20, 8, 12)])
def test_a_slowdown_that_was_mended_early_on_has_two_ends(parts):
    """One end alone is significant and, by medians, too small to matter: behind it most runs are as before."""
    levels = [level for level, count in zip((0.0, 0.1, 0.0), parts, strict=True) for _ in range(count)]
    values = [level + noise for level, noise in zip(levels, series(7, len(levels)), strict=True)]
    found = steps(values, least=0.03)
    assert [abs(step.at - at) <= 1 for step, at in zip(found, (parts[0], sum(parts[:2])), strict=True)] == [True, True]
