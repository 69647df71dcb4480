"""A stopwatch in the layers of a whole model: what passes in each, after each, and in all of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparsebench.pruning.weights import layer_of
from sparsebench.timing import loops_for, warm, without_gc

WARM_NS = 2_000_000


def clock() -> int:
    """Nanoseconds. With one thread those that this process was given: what others take between them is not counted."""
    return time.process_time_ns() if torch.get_num_threads() == 1 else time.perf_counter_ns()


@dataclass
class Times:
    """Milliseconds of a model, of its layers, and of what comes after each until the next one begins."""

    total: float
    layers: dict[str, float]
    after: dict[str, float]

    @property
    def rest(self) -> float:
        """Of everything else."""
        return self.total - sum(self.layers.values())


class Probed:
    """A model in eval mode with a batch, and a stopwatch in its layers."""

    def __init__(self, model: nn.Module, x: Tensor, names: Sequence[str]) -> None:
        self.model, self.x, self.names = model, x, tuple(names)
        self.laps: dict[str, list[int]] = {name: [] for name in names}

    @torch.no_grad()
    def run(self) -> None:
        """One batch."""
        self.model(self.x)

    def whole(self, loops: int) -> float:
        """Milliseconds of one batch without stopwatches inside."""
        began = clock()
        for _ in range(loops):
            self.run()
        return (clock() - began) / 1e6 / loops

    def inside(self) -> tuple[dict[str, float], dict[str, float]]:
        """Milliseconds in each layer during one batch, and after it until the next one begins.

        Of a layer that is used more than once it is all of them.
        """
        spent, after = dict.fromkeys(self.names, 0), dict.fromkeys(self.names, 0)
        place: list[tuple[str, int]] = []  # where the stopwatch was pressed last

        def start(name: str) -> None:
            now = clock()
            if place:
                after[place[0][0]] += now - place[0][1]
            place[:] = [(name, now)]

        def stop(name: str) -> None:
            now = clock()
            spent[name] += now - place[0][1]
            place[:] = [(name, now)]

        handles = []
        for name in self.names:
            module = layer_of(self.model, name)
            handles.append(module.register_forward_pre_hook(lambda *_, name=name: start(name)))
            handles.append(module.register_forward_hook(lambda *_, name=name: stop(name)))
        try:
            self.run()
        finally:
            for handle in handles:
                handle.remove()
        if place:
            after[place[0][0]] += clock() - place[0][1]
        return {name: ns / 1e6 for name, ns in spent.items()}, {name: ns / 1e6 for name, ns in after.items()}


def contest(runs: Mapping[Any, Probed], rounds: int) -> dict[Any, list[float]]:
    """Milliseconds of each in every round; rounds take turns, so that drift hits all alike."""
    loops = {key: loops_for(warm(run.run)) for key, run in runs.items()}
    laps: dict[Any, list[float]] = {key: [] for key in runs}
    with without_gc():
        for _ in range(rounds):
            for key, run in runs.items():
                warm(run.run, WARM_NS)
                laps[key].append(run.whole(loops[key]))
    return laps


def race(runs: Mapping[Any, Probed], rounds: int) -> dict[Any, Times]:
    """Totals and, in rounds of their own, the layers."""
    laps = contest(runs, rounds)
    seen: dict[Any, list[tuple[dict[str, float], dict[str, float]]]] = {key: [] for key in runs}
    with without_gc():
        for _ in range(rounds):
            for key, run in runs.items():
                run.run()
                seen[key].append(run.inside())
    return {
        key: Times(
            min(laps[key]),
            {name: min(layers[name] for layers, _ in seen[key]) for name in run.names},
            {name: min(after[name] for _, after in seen[key]) for name in run.names},
        )
        for key, run in runs.items()
    }
