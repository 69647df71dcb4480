"""Peak memory since the last reset, the canary, and stolen time: numbers that are there and mean what they say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sparsebench.harness import vitals
from sparsebench.harness.crew import environment


def test_the_peak_is_that_since_the_reset() -> None:
    before = vitals.reset_peak()
    held = bytearray(b"x" * (64 << 20))
    peak = vitals.resident_peak()
    assert peak >= before + (60 << 20)
    del held
    assert vitals.resident_peak() == peak, "a peak stays"
    assert vitals.reset_peak() < peak - (30 << 20), "until it is forgotten"


def test_the_canary_takes_time() -> None:
    assert 1e3 < vitals.canary_ns() < 1e9


def test_stolen_time_is_a_part_of_all_time() -> None:
    stolen, every = vitals.stolen_ticks()
    assert 0 <= stolen <= every


def test_where_nothing_is_counted_nothing_is_stolen(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(*_: object) -> str:
        raise OSError

    monkeypatch.setattr(Path, "read_text", unreadable)
    assert vitals.stolen_ticks() == (0, 0)
    assert vitals.resident_peak() > 0


FREED = """
import psutil
from sparsebench.harness.vitals import reset_peak
held = [bytearray(b"x" * (8 << 20)) for _ in range(8)]
del held
print(psutil.Process().memory_info().rss - reset_peak())
"""


def test_what_a_worker_freed_stays_with_it_and_is_not_counted() -> None:
    """Or every call pages its result in again, in some processes; the twin is a process without that setting."""
    kept, given_back = (
        int(
            subprocess.run(
                [sys.executable, "-c", FREED], env=os.environ | extra, capture_output=True, check=True
            ).stdout
        )
        for extra in (environment(1), {})
    )
    assert kept > 48 << 20
    assert given_back < 16 << 20
