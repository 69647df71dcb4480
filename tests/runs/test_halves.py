"""Work in two processes comes to what it comes to in one, whatever becomes of the second."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest

from sparsebench.runs.halves import in_halves


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})


def squares(items: Sequence[int]) -> list[tuple[int, int]]:
    return [(item * item, os.getpid()) for item in items]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 1001])
def test_order_and_number_stay_and_the_second_half_is_another_process(count):
    found = in_halves(squares, range(count))
    assert [square for square, _ in found] == [i * i for i in range(count)]
    assert len({pid for _, pid in found}) == min(count, 2)
    assert [pid == os.getpid() for _, pid in found] == [i < (count + 1) // 2 for i in range(count)]


def test_one_core_does_it_alone(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    assert {pid for _, pid in in_halves(squares, range(10))} == {os.getpid()}


def test_what_the_other_process_cannot_do_is_done_here_and_errors_are_raised_here():
    here = os.getpid()

    def frail(items: Sequence[int]) -> list[tuple[int, int]]:
        if os.getpid() != here:
            os._exit(9)
        return squares(items)

    assert in_halves(frail, range(4)) == [(i * i, here) for i in range(4)]

    def broken(items: Sequence[int]) -> list[int]:
        return [1 // (item - 3) for item in items]

    with pytest.raises(ZeroDivisionError):
        in_halves(broken, range(4))
