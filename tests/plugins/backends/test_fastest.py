"""Choosing the faster of two runs: one repetition if that is clear, a race if it is not."""

from types import SimpleNamespace

import pytest

from sparsebench.builtin.backends import _fastest


class Run:
    """Takes so many milliseconds by the pretended clock."""

    def __init__(self, ms: float) -> None:
        self.ms, self.calls = ms, 0

    def __call__(self) -> None:
        self.calls += 1


@pytest.fixture(autouse=True)
def _pretended_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    def lap(run: Run, loops: int) -> SimpleNamespace:
        for _ in range(loops):
            run()
        return SimpleNamespace(wall_ns=1e6 * run.ms * loops)

    monkeypatch.setattr(_fastest, "lap", lap)
    monkeypatch.setattr(_fastest, "race", None)


def test_a_clear_case_is_decided_by_two_repetitions_each() -> None:
    runs = {"slow": Run(20), "quick": Run(2)}
    assert _fastest.fastest(runs) == "quick"
    assert [run.calls for run in runs.values()] == [2, 2]


def test_a_long_repetition_is_not_raced() -> None:
    assert _fastest.fastest({"slow": Run(400), "quick": Run(350)}) == "quick"


def test_a_close_case_is_raced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_fastest, "race", lambda runs, rounds: dict.fromkeys(runs, 2.0) | {"b": 1.0})
    assert _fastest.fastest({"a": Run(10), "b": Run(11)}) == "b"
