"""Two processes for work on much that is stored: two runs of 10,000 cells each take seconds to read."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def in_halves(work: Callable[[Sequence[A]], list[B]], items: Sequence[A]) -> list[B]:
    """`work` on all items, on the second half of them in a forked process; what that cannot do is done here.

    Only what comes back is pickled. A machine with one core, and whoever has one item, does all of it here.
    """
    if len(items) < 2 or len(os.sched_getaffinity(0)) < 2:
        return work(items)
    middle = (len(items) + 1) // 2
    context = get_context("fork")  # what the work needs is there without being sent
    mine, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_answer, args=(work, items[middle:], theirs), daemon=True)
    child.start()
    theirs.close()
    try:
        first = work(items[:middle])
        try:
            second: list[B] = mine.recv()
        except EOFError:  # it failed or was killed: whatever the reason is, it shows here
            second = work(items[middle:])
    finally:
        mine.close()
        child.terminate()
        child.join()
    return first + second


def _answer(work: Callable[[Sequence[A]], list[B]], items: Sequence[A], to: Connection) -> None:
    try:
        to.send(work(items))
    except BaseException:  # a Ctrl-C too: the parent says all there is to say
        os._exit(1)
