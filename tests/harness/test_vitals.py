"""Peak memory since the last reset, the canary, and stolen time: numbers that are there and mean what they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparsebench.harness import vitals


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
