"""The stopwatch, on a clock of its own: what is timed, how often it repeats, and what does not count."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

import pytest

from sparsebench import timing


class Clock:
    """A clock that only work moves on; it writes down what was done."""

    def __init__(self) -> None:
        self.now = self.cpu = 0
        self.log = ""

    def work(self, name: str, *each_ns: int) -> Callable[[], None]:
        """Work that takes the given times, call after call, and the last one from then on."""
        left = [*each_ns]

        def run() -> None:
            took = left.pop(0) if len(left) > 1 else left[0]
            self.now += took
            self.cpu += took // 2
            self.log += name

        return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(time, "perf_counter_ns", lambda: made.now)
    monkeypatch.setattr(time, "process_time_ns", lambda: made.cpu)
    return made


def test_a_lap_is_so_many_repetitions_and_their_time(clock: Clock) -> None:
    lap = timing.lap(clock.work("a", 10), 7)
    assert (lap.wall_ns, lap.cpu_ns, lap.loops, lap.each_ns) == (70, 35, 7, 10.0)
    assert clock.log == "aaaaaaa"
    assert lap.switches >= 0


def test_warming_repeats_for_the_least_time_and_at_least_once(clock: Clock) -> None:
    assert timing.warm(clock.work("a", 10), 25) == 10
    assert clock.log == "aaa"
    assert timing.warm(clock.work("b", 10), 0) == 10
    assert clock.log == "aaab"


def test_warming_tells_the_fastest_repetition_not_an_interrupted_one(clock: Clock) -> None:
    assert timing.warm(clock.work("a", 500, 10, 12, 4000), 3000) == 10


@pytest.mark.parametrize(("each_ns", "loops"), [(1e6, 5), (0.9e6, 6), (5e6, 1), (1e9, 1), (0.0, 5_000_000)])
def test_loops_fill_the_sample_and_are_at_least_one(each_ns: float, loops: int) -> None:
    assert timing.loops_for(each_ns) == loops


def test_a_race_takes_turns_so_that_drift_hits_all_alike(clock: Clock) -> None:
    # a: two repetitions fill a lap of 6 ms, b: one; before each lap 3 ms untimed
    found = timing.race({"a": clock.work("a", 3_000_000), "b": clock.work("b", 6_000_000)}, 3, 6_000_000)
    assert found == {"a": 3_000_000, "b": 6_000_000}
    assert clock.log == "ab" + "aaabb" * 3


def test_a_race_tells_medians(clock: Clock) -> None:
    run = clock.work("a", 6_000_000, 6_000_000, 6_000_000, 6_000_000, 90_000_000, 6_000_000)
    assert timing.race({"a": run}, 3, 6_000_000) == {"a": 6_000_000}


def test_nothing_is_collected_while_timing() -> None:
    assert gc.isenabled()
    with timing.without_gc():
        assert not gc.isenabled()
        with timing.without_gc():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()


def test_collecting_goes_on_after_an_error() -> None:
    with pytest.raises(ValueError, match="no"), timing.without_gc():
        raise ValueError("no")
    assert gc.isenabled()


def test_a_real_lap_sees_the_difference_between_work_and_sleep() -> None:
    asleep = timing.lap(lambda: time.sleep(0.005), 2)
    busy = timing.lap(lambda: sum(range(100_000)), 2)
    assert asleep.wall_ns >= 10_000_000 > 5 * asleep.cpu_ns
    assert busy.cpu_ns > 0.2 * busy.wall_ns
