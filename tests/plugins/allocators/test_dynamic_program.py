"""The dynamic program of SPDY against enumeration, and the search above it; every proof has a twin that fails it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from sparsebench.builtin.allocators._dynamic_program import BUCKETS, choose_options, solve
from sparsebench.builtin.allocators._spdy import grown, searched
from sparsebench.errors import BudgetError

FAULT = (AssertionError, IndexError)
Options = Sequence[np.ndarray]
Choose = Callable[..., list[int]]


def total(tables: Options, chosen: Sequence[int]) -> float:
    return sum(float(table[option]) for table, option in zip(tables, chosen, strict=True))


def random_tables(count: int, layers: int = 4, options: int = 4) -> list[tuple[Options, Options, float]]:
    """Costs, times and a limit between the least and the most that the times can sum to; the first option is dense."""
    draw = np.random.default_rng(0)
    made = []
    for _ in range(count):
        costs = [np.concatenate([[0.0], draw.random(options - 1)]) for _ in range(layers)]
        times = [np.concatenate([[1.5], draw.random(options - 1)]) for _ in range(layers)]
        least = sum(float(each.min()) for each in times)
        made.append((costs, times, least + draw.random() * (1.5 * layers - least)))
    return made


def equals_enumeration(program: Callable[..., list[int] | None]) -> None:
    """On 200 random tables of 4 layers and 4 options it finds the least cost that any choice has, or none as well."""
    found = 0
    for index, (costs, times, limit) in enumerate(random_tables(200)):
        tight = 0.4 if index % 4 == 0 else 1.0
        rounded = [np.ceil(each * (50 / (tight * limit))).astype(np.int64) for each in times]
        fitting = [c for c in itertools.product(range(4), repeat=4) if total(rounded, c) <= 50]
        made = program(costs, rounded, 50)
        assert (made is None) == (not fitting)
        if made is not None:
            assert total(rounded, made) <= 50
            assert total(costs, made) == pytest.approx(min(total(costs, choice) for choice in fitting))
            found += 1
    assert 100 < found < 200


def greedy(costs: Options, times: Options, capacity: int) -> list[int] | None:
    """Takes for one layer after the other the cheapest option that leaves enough for the rest."""
    chosen: list[int] = []
    for index, cost in enumerate(costs):
        rest = sum(int(each.min()) for each in times[index + 1 :])
        fits = [o for o in range(len(cost)) if total(times[:index], chosen) + times[index][o] + rest <= capacity]
        if not fits:
            return None
        chosen.append(min(fits, key=lambda option: cost[option]))
    return chosen


def gives_minus_one(costs: Options, times: Options, capacity: int) -> list[int] | None:
    """As published code does where nothing fits: the last option of every layer."""
    return solve(costs, times, capacity) or [-1] * len(costs)


def never_takes_longer(choose: Choose) -> None:
    """The times as they are, not as they were rounded, sum to no more than the limit."""
    for costs, times, limit in random_tables(200):
        assert total(times, choose(costs, times, limit, 40)) <= limit


def rounds_to_nearest(costs: Options, times: Options, limit: float, buckets: int = BUCKETS) -> list[int]:
    rounded = [np.round(each * (buckets / limit)).astype(np.int64) for each in times]
    return solve(costs, rounded, buckets) or [int(each.argmin()) for each in times]


def is_no_dearer_with_more_time(choose: Choose) -> None:
    """A looser limit never has a higher cost, with the buckets of real use."""
    for costs, times, limit in random_tables(20):
        made = [total(costs, choose(costs, times, limit * factor)) for factor in (1.0, 1.1, 1.3, 2.0)]
        assert made == sorted(made, reverse=True)


def takes_what_just_fits(costs: Options, times: Options, limit: float, buckets: int = BUCKETS) -> list[int]:
    """Uses up the time."""
    choices = itertools.product(*(range(len(each)) for each in costs))
    return list(max((c for c in choices if total(times, c) <= limit), key=lambda choice: total(times, choice)))


def stays_dense_if_it_can(choose: Choose) -> None:
    """With as much time as all dense layers take, or more, all are dense: rounding up does not forbid it."""
    for costs, times, _ in random_tables(20):
        for more in (1.0, 1.5):
            assert choose(costs, times, more * sum(float(each[0]) for each in times), 7) == [0, 0, 0, 0]


def trusts_rounding(costs: Options, times: Options, limit: float, buckets: int = BUCKETS) -> list[int]:
    rounded = [np.ceil(each * (buckets / limit) + 1e-9).astype(np.int64) for each in times]
    return solve(costs, rounded, buckets) or [int(each.argmin()) for each in times]


def says_what_cannot_be(choose: Choose) -> None:
    """Less time than the fastest options take is an error that says how much they take."""
    with pytest.raises(BudgetError, match=r"takes 0\.75 or less; the fastest take 1$"):
        choose([np.array([0.0, 1.0])] * 2, [np.array([2.0, 0.5])] * 2, 0.75)


def silent(costs: Options, times: Options, limit: float, buckets: int = BUCKETS) -> list[int]:
    return [-1] * len(costs)


def an_option_beyond_the_limit_is_left_out(choose: Choose) -> None:
    """Of the first layer too."""
    costs, times = [np.array([0.0, 1.0])] * 3, [np.array([9.0, 1.0]), *[np.array([1.0, 0.5])] * 2]
    assert choose(costs, times, 3.5) == [1, 0, 0]


def fills_the_first_layer_blindly(costs: Options, times: Options, limit: float, buckets: int = BUCKETS) -> list[int]:
    """As published code does: every other layer has a guard."""
    first = np.full(buckets + 1, np.inf)
    for cost, time in zip(costs[0], times[0], strict=True):
        first[int(np.ceil(time * (buckets / limit)))] = cost
    return choose_options(costs, times, limit, buckets)


@pytest.mark.parametrize(
    ("oracle", "honest", "broken"),
    [
        (equals_enumeration, solve, greedy),
        (equals_enumeration, solve, gives_minus_one),
        (never_takes_longer, choose_options, rounds_to_nearest),
        (is_no_dearer_with_more_time, choose_options, takes_what_just_fits),
        (stays_dense_if_it_can, choose_options, trusts_rounding),
        (says_what_cannot_be, choose_options, silent),
        (an_option_beyond_the_limit_is_left_out, choose_options, fills_the_first_layer_blindly),
    ],
    ids=lambda value: value.__name__,
)
def test_the_program_passes_and_its_twin_fails(oracle: Callable[[Any], None], honest: Any, broken: Any) -> None:
    oracle(honest)
    with pytest.raises((*FAULT, pytest.fail.Exception)):
        oracle(broken)


def test_what_fits_without_rounding_alone_is_taken() -> None:
    """Three times a third fill the limit, and each of them is rounded up."""
    times = [np.array([2.0, 1 / 3])] * 3
    assert choose_options([np.array([0.0, 1.0])] * 3, times, 1.0, 10) == [1, 1, 1]


# the search


def finds_the_valley(search: Callable[..., tuple[int, ...]]) -> None:
    """Of profiles whose loss is known, one of the best; no worse than equal sensitivities; the same for a seed."""
    best = (0, 3, 1, 2, 0, 3)

    def solve_for(sensitivities: np.ndarray) -> tuple[int, ...]:
        return tuple(int(x) for x in np.minimum(3, 4 * (1 - sensitivities)))

    def loss(levels: tuple[int, ...]) -> float:
        return float(sum((a - b) ** 2 for a, b in zip(levels, best, strict=True)))

    made = [search(6, solve_for, loss, torch.Generator().manual_seed(seed), 20, 40) for seed in (0, 0, 1)]
    assert made[0] == made[1]
    assert loss(made[0]) <= 1
    assert loss(made[2]) <= loss(solve_for(np.ones(6)))


def only_the_prior(count: int, solve_for: Any, loss: Any, *_: Any) -> tuple[int, ...]:
    levels: tuple[int, ...] = solve_for(np.ones(count))
    return levels


def unseeded(count: int, solve_for: Any, loss: Any, generator: Any, *more: Any) -> tuple[int, ...]:
    return searched(count, solve_for, loss, torch.Generator().manual_seed(int(torch.randint(999, ()))), 1, 0)


@pytest.mark.parametrize("broken", [only_the_prior, unseeded], ids=lambda value: value.__name__)
def test_the_search_passes_and_its_twin_fails(broken: Any) -> None:
    finds_the_valley(searched)
    with pytest.raises(AssertionError):
        finds_the_valley(broken)


def test_what_is_left_goes_to_all_in_proportion_and_to_none_beyond_its_size() -> None:
    made = grown({"a": 10.0, "b": 90.0, "c": 40.0}, {"a": 100, "b": 100, "c": 100}, 170.0)
    assert made == {"a": pytest.approx(14.0), "b": 100.0, "c": pytest.approx(56.0)}
    assert sum(made.values()) == pytest.approx(170.0)
