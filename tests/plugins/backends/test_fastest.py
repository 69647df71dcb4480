"""Choosing the faster of two runs: one repetition if that is clear, a race if it is not."""

import time

from sparsebench.builtin.backends import _fastest


def wait(seconds: float, log: list[float]):
    def run() -> None:
        log.append(seconds)
        time.sleep(seconds)

    return run


def test_a_clear_case_is_decided_by_two_repetitions_each(monkeypatch) -> None:
    monkeypatch.setattr(_fastest, "race", None)
    log: list[float] = []
    assert _fastest.fastest({"slow": wait(0.02, log), "quick": wait(0.002, log)}) == "quick"
    assert len(log) == 4


def test_a_long_repetition_is_not_raced(monkeypatch) -> None:
    monkeypatch.setattr(_fastest, "race", None)
    monkeypatch.setattr(_fastest, "_LONG_NS", 1_000_000)
    assert _fastest.fastest({"slow": wait(0.02, []), "quick": wait(0.015, [])}) == "quick"


def test_a_close_case_is_raced(monkeypatch) -> None:
    monkeypatch.setattr(_fastest, "race", lambda runs, rounds: dict.fromkeys(runs, 2.0) | {"b": 1.0})
    assert _fastest.fastest({"a": wait(0.01, []), "b": wait(0.011, [])}) == "b"
