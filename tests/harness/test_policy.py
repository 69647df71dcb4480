"""The order in which variants run, how often each repeats, and which rounds count, as logs that can be read."""

from __future__ import annotations

from collections import Counter

import pytest

from sparsebench.harness import policy
from sparsebench.problem import Problem
from sparsebench.timing import SAMPLE_NS, STREAM_NS, WARM_NS

MS = 1e6


def log(variants: str, rounds: int, seed: str) -> str:
    """One word for each round: the variants in the order in which they run."""
    return " ".join("".join(order) for order in policy.orders(list(variants), rounds, seed))


def places(made: str) -> Counter[tuple[str, int]]:
    return Counter((variant, place) for order in made.split() for place, variant in enumerate(order))


def test_the_order_of_a_run_can_be_read_and_is_always_the_same() -> None:
    assert log("abc", 6, "run/0/cell") == log("abc", 6, "run/0/cell")
    assert [sorted(order) for order in log("abc", 6, "run/0/cell").split()] == [["a", "b", "c"]] * 6
    assert log("a", 3, "x") == "a a a"
    assert policy.orders([], 3, "x") == []


def test_another_block_has_another_order() -> None:
    assert len({log("abcd", 12, f"run/{block}/cell") for block in range(20)}) == 20


@pytest.mark.parametrize("variants", ["ab", "abc", "abcd", "abcde"])
@pytest.mark.parametrize("seed", ["1", "2", "3"])
def test_each_variant_takes_each_place_equally_often(variants: str, seed: str) -> None:
    turns = len(variants)
    made = log(variants, 4 * turns, seed)
    assert set(places(made).values()) == {4}
    for start in range(0, 4 * turns, turns):  # over consecutive rounds already, so that slow drift hits all alike
        window = " ".join(made.split()[start : start + turns])
        assert set(places(window).values()) == {1}


def test_rounds_that_do_not_divide_are_as_balanced_as_can_be() -> None:
    assert set(places(log("abc", 7, "x")).values()) <= {2, 3}


def test_a_fixed_order_is_seen_as_unbalanced() -> None:
    assert set(places("abc abc abc").values()) == {3}
    assert set(places(log("abc", 3, "x")).values()) == {1}


def test_fast_kernels_repeat_until_the_fastest_fills_a_sample() -> None:
    made = policy.schedule({"a": 0.1 * MS, "b": 0.2 * MS}, None, streams=False)
    assert (made.rounds, made.discarded) == (policy.ROUNDS, policy.DISCARDED) == (12, 1)
    assert made.loops == {"a": 50, "b": 50}
    assert made.warm_ns == {"a": WARM_NS, "b": WARM_NS}
    assert 50 * 0.1 * MS == SAMPLE_NS


def test_a_slow_variant_beside_a_fast_one_takes_no_longer_than_a_few_samples() -> None:
    made = policy.schedule({"fast": 0.01 * MS, "slow": 2 * MS}, None, streams=False)
    assert made.loops == {"fast": 500, "slow": policy.LONGEST_SAMPLES * SAMPLE_NS / (2 * MS)}


def test_kernels_that_stream_memory_have_longer_samples() -> None:
    made = policy.schedule({"a": 1 * MS}, None, streams=True)
    assert made.loops["a"] * 1 * MS == STREAM_NS > SAMPLE_NS


def test_over_a_tenth_of_a_second_there_are_few_rounds_of_one_repetition() -> None:
    twice = policy.schedule({"a": 150 * MS, "b": 120 * MS}, None, streams=False, times=2)
    assert (twice.rounds, twice.discarded) == (8, 1)
    made = policy.schedule({"a": 150 * MS, "b": 120 * MS}, None, streams=False)
    assert (made.rounds, made.discarded) == (4, 1)
    assert made.loops == {"a": 1, "b": 1}
    assert made.warm_ns == {"a": 0, "b": 0}


def test_beside_a_slow_variant_a_fast_one_still_fills_its_sample_and_is_warmed() -> None:
    made = policy.schedule({"slow": 150 * MS, "fast": 1 * MS}, None, streams=False)
    assert (made.rounds, made.discarded) == (4, 1)
    assert made.loops == {"slow": 1, "fast": 5}
    assert made.warm_ns == {"slow": 0, "fast": WARM_NS}


@pytest.mark.parametrize("rounds", [3, 6, 12])
def test_the_discarded_round_is_none_of_those_asked_for(rounds: int) -> None:
    made = policy.schedule({"a": 1 * MS}, rounds, streams=False)
    assert (made.rounds, made.discarded) == (rounds, 1)


def test_the_suite_says_how_many_rounds() -> None:
    assert policy.schedule({"a": 1 * MS}, 5, streams=False).rounds == 5
    assert policy.schedule({"a": 200 * MS}, 5, streams=False).rounds == 5


def test_a_whole_training_runs_once_and_nothing_is_discarded() -> None:
    made = policy.schedule({"a": None, "b": None}, 12, streams=False)
    assert (made.rounds, made.discarded, made.loops, made.warm_ns) == (1, 0, {"a": 1, "b": 1}, {"a": 0, "b": 0})


def test_nobody_left_is_no_rounds_of_anything() -> None:
    assert policy.schedule({}, None, streams=False).loops == {}


@pytest.mark.parametrize(
    ("size", "batch", "streams"), [(2048, 1, True), (2048, 8, True), (2048, 9, False), (512, 1, False)]
)
def test_few_inputs_and_a_large_weight_stream_memory(size: int, batch: int, streams: bool) -> None:
    problem = Problem(op="linear", out_features=size, in_features=size, batch=batch)
    assert policy.streams_memory(problem) is streams
    assert not policy.streams_memory(None)


def spoiled(threads: int = 1, **rounds: list[tuple[float, float]]) -> list[int]:
    """Rounds dropped, from (wall, CPU) milliseconds of each round of each variant."""
    wall = {name: [w * MS for w, _ in seen] for name, seen in rounds.items()}
    cpu = {name: [c * MS for _, c in seen] for name, seen in rounds.items()}
    return policy.spoiled_rounds(wall, cpu, threads)


CALM = [(5.0, 5.0), (5.1, 5.1), (4.9, 4.9), (5.0, 5.0)]


def test_calm_rounds_all_count() -> None:
    assert spoiled(a=CALM, b=CALM) == []


def test_a_round_in_which_one_variant_waited_is_dropped_for_all() -> None:
    assert spoiled(a=CALM, b=[(5.0, 5.0), (9.0, 5.0), (5.0, 5.0), (5.0, 4.9)]) == [1]
    assert spoiled(a=[(7.0, 5.0), *CALM[1:]], b=[*CALM[:3], (9.0, 5.0)]) == [0, 3]


@pytest.mark.parametrize(("wall", "dropped"), [(5.24, []), (5.26, [2])])
def test_five_per_cent_of_waiting_is_the_limit(wall: float, dropped: list[int]) -> None:
    assert spoiled(a=[(5.0, 5.0), (5.0, 5.0), (wall, 5.0), (5.0, 5.0)]) == dropped


SLEEPER = [(20.2, 1.1), (20.5, 1.45), (20.6, 1.6), (20.3, 1.25)]  # 19 ms of sleep, and CPU time that varies by half


def test_a_variant_that_always_sleeps_spoils_nobody() -> None:
    assert spoiled(a=CALM, sleeper=SLEEPER) == []


def test_a_sleeper_that_is_disturbed_is_seen() -> None:
    assert spoiled(a=CALM, sleeper=[*SLEEPER[:3], (23.0, 1.25)]) == [3]


def test_a_hog_that_slows_everybody_all_the_time_is_not_their_nature() -> None:
    hogged = [(10.0, 5.0), (9.5, 5.0), (10.5, 5.0), (10.0, 5.0)]
    assert spoiled(a=hogged, b=hogged) == [0, 1, 2, 3]
    assert spoiled(a=hogged) == [0, 1, 2, 3]


def test_a_hog_that_lets_somebody_through_once_is_still_a_hog() -> None:
    hogged = [(10.0, 5.0), (9.5, 5.0), (10.5, 5.0), (10.0, 5.0)]
    once = [(5.0, 5.0), *hogged[1:]]
    assert spoiled(a=once, b=hogged) == [0, 1, 2, 3]


def test_with_several_threads_idle_ones_are_nobodys_fault() -> None:
    one_of_two = [(5.0, 5.0), (5.2, 5.2), (5.1, 5.1), (5.0, 5.0)]
    assert spoiled(threads=2, a=one_of_two) == []
    assert spoiled(threads=2, a=[*one_of_two[:3], (8.0, 5.0)]) == [3]


def test_no_rounds_are_no_spoiled_rounds() -> None:
    assert policy.spoiled_rounds({}, {}, 1) == []
    assert policy.spoiled_rounds({"a": []}, {"a": []}, 1) == []


@pytest.mark.parametrize(("dropped", "lost"), [(0, False), (3, False), (4, True), (12, True)])
def test_a_third_of_the_rounds_may_not_be_lost(dropped: int, lost: bool) -> None:
    assert policy.is_contaminated(dropped, 12) is lost
    assert not policy.is_contaminated(0, 0)


def test_of_one_round_nobody_can_tell_a_variants_nature() -> None:
    assert policy.spoiled_rounds({"a": [100.0], "b": [200.0]}, {"a": [100.0], "b": [100.0]}, 1) == [0]


def test_a_clock_that_stood_still_spoils_its_round() -> None:
    assert policy.spoiled_rounds({"a": [5 * MS, 0, 5 * MS, -1.0]}, {"a": [5 * MS, 0, 5 * MS, -1.0]}, 1) == [1, 3]
