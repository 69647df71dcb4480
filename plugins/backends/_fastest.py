"""The faster of a few ways to do the same thing, at a small cost, for kernels that choose when they are bound."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sparsebench.timing import lap, race

_ROUNDS = 3
_CLEAR = 2.0  # one repetition says enough when it differs by this factor
_LONG_NS = 300_000_000  # or when a repetition takes this long: a race would repeat it a dozen times


def fastest(runs: Mapping[str, Callable[[], object]]) -> str:
    """The name of the run that takes the least time."""
    once = {}
    for name, run in runs.items():
        run()
        once[name] = float(lap(run, 1).wall_ns)
    times = once
    if max(once.values()) < _CLEAR * min(once.values()) and max(once.values()) < _LONG_NS:
        times = race(runs, rounds=_ROUNDS)
    return min(times, key=lambda name: times[name])
