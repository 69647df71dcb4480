"""Half of a long piece of work in a process of its own, where there is a core for it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import TypeVar

import msgspec

T = TypeVar("T")
R = TypeVar("R")


def in_halves(work: Callable[[Sequence[T]], list[R]], items: Sequence[T], kind: type[R]) -> list[R]:
    """`work(items)`, which must look at one item at a time and change nothing; the results are records of a `kind`.

    What becomes of the other process does no harm: what it does not answer is worked out here, and fails here.
    """
    if len(os.sched_getaffinity(0)) < 2 or len(items) < 2:
        return work(items)
    middle = len(items) // 2
    fork = get_context("fork")  # so that nothing is sent there
    here, there = fork.Pipe(duplex=False)
    other = fork.Process(target=_answer, args=(here, there, work, items[middle:]), daemon=True)
    try:
        other.start()
    except OSError:  # no memory or no process to be had
        here.close()
        there.close()
        return work(items)
    there.close()
    try:
        results = work(items[:middle])
        return results + (_answered(here, kind) or work(items[middle:]))
    finally:
        here.close()
        other.kill()
        other.join()


def _answer(here: Connection, there: Connection, work: Callable[[Sequence[T]], list[R]], items: Sequence[T]) -> None:
    here.close()  # who holds the other end as well waits for ever to be read, should the parent be killed
    with contextlib.suppress(Exception, KeyboardInterrupt):
        there.send_bytes(msgspec.msgpack.encode(work(items)))  # pickled, records take five times as long


def _answered(pipe: Connection, kind: type[R]) -> list[R] | None:
    try:
        return msgspec.msgpack.decode(pipe.recv_bytes(), type=list[kind])  # type: ignore[valid-type]
    except (EOFError, OSError, msgspec.MsgspecError):  # it died before, or while, it answered
        return None
