"""Measurements side by side, each on a core of its own, with one listener to them all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from queue import SimpleQueue
from threading import Lock
from typing import TypeVar

from sparsebench.harness.cells import Cell
from sparsebench.harness.runner import Listener
from sparsebench.runs.records import Sample

Work = TypeVar("Work")
Result = TypeVar("Result")


class Ended(Exception):
    """Raised in a lane that is to end: nobody waits for its result any more."""


class Lanes:
    """A thread for each of some cores, pinned to it with every process that it starts, and one listener to them all.

    A context manager: on leaving, what still runs is ended at its next cell. Who opens the lanes says how much there
    is to do, since one of them alone does not know.
    """

    def __init__(self, cores: Sequence[int], listener: Listener) -> None:
        self.listener, self.lock, self.ended = listener, Lock(), False
        self.cores = SimpleQueue[int]()
        for core in cores:
            self.cores.put(core)
        self.pool = ThreadPoolExecutor(len(cores), initializer=self._pin)

    def _pin(self) -> None:
        os.sched_setaffinity(0, {self.cores.get()})  # of this thread alone, and of what it starts

    def run(self, do: Callable[[Work], Result], work: Iterable[Work]) -> Iterator[Result]:
        """What `do` makes of each piece of work, as it comes; raises the first error that it raises."""
        for future in as_completed([self.pool.submit(do, piece) for piece in work]):
            yield future.result()

    def begin(self, total: int, done: int) -> None:
        """Ignored: it is the extent of one lane."""

    def cell(self, cell: Cell, block: int) -> None:
        """A cell begins in one of the lanes."""
        with self.lock:
            if self.ended:
                raise Ended
            self.listener.cell(cell, block)

    def done(self, samples: Sequence[Sample]) -> None:
        """A cell of one of the lanes has been written."""
        with self.lock:
            self.listener.done(samples)

    def __enter__(self) -> Lanes:
        return self

    def __exit__(self, *exc: object) -> None:
        self.ended = True
        self.pool.shutdown(cancel_futures=True)
