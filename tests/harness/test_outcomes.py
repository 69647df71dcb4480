"""Who is fastest, which plan is worth keeping, and what is kept: pure decisions over what a race found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sparsebench import plans
from sparsebench.harness.outcomes import Candidate, Outcome, keep
from sparsebench.plans import Code, code_of, tuned_plan
from sparsebench.problem import Problem

PROBLEM = Problem(op="linear", out_features=64, in_features=32, batch=8)
DENSE = 100.0
CODE = code_of("sparsebench.builtin.backends._cython")


def ran(backend: str, time_ns: float, **rest: Any) -> Candidate:
    return Candidate(backend, **{"time_ns": time_ns, "ratio": DENSE / time_ns, "raced": True, **rest})


def found(*candidates: Candidate) -> Outcome:
    dense = Candidate("torch-dense", time_ns=DENSE, ratio=1.0, raced=True)
    names = ("torch-dense", *(each.backend for each in candidates))
    return Outcome(("fc", "fc2"), PROBLEM, "both", dense, candidates, dict.fromkeys(names, CODE))


def test_the_fastest_backend_wins_with_its_best_plan() -> None:
    outcome = found(
        ran("a", 60.0, plan={"tile": 1}, own=True), ran("a", 40.0, plan={"tile": 2}), ran("b", 50.0, own=True)
    )
    winner = outcome.fastest()
    assert winner is not None
    assert winner.variant == "a@tile=2"
    assert outcome.gain("a") == pytest.approx(1.5)
    assert outcome.gain("b") == 1.0


def test_a_backend_keeps_its_own_choice_unless_another_plan_is_faster_by_more_than_the_noise() -> None:
    own = ran("a", 51.0, plan={"tile": 1}, own=True)
    assert found(own, ran("a", 50.0, plan={"tile": 2})).best("a") == own
    assert found(own, ran("a", 49.0, plan={"tile": 2})).best("a") != own


def test_the_dense_layer_stays_where_nobody_is_faster_by_more_than_the_noise() -> None:
    assert found(ran("a", 98.0)).fastest() is None
    assert found(ran("a", 96.0)).fastest() is not None
    assert found().fastest() is None


@pytest.mark.parametrize(
    "fault", [{"status": "wrong"}, {"status": "crash", "time_ns": None, "ratio": None}, {"raced": False}], ids=str
)
def test_what_was_wrong_or_failed_or_not_raced_never_wins(fault: dict[str, Any]) -> None:
    bad = replace(ran("a", 1.0, plan={"tile": 2}), **fault)
    good = ran("a", 50.0, plan={"tile": 1}, own=True)
    winner = found(bad, good).fastest()
    assert winner is not None and winner.plan == {"tile": 1}
    assert found(bad).fastest() is None


def test_without_its_own_choice_the_fastest_plan_stands_and_gains_nothing() -> None:
    outcome = found(ran("a", 1.0, own=True, status="wrong"), ran("a", 50.0, plan={"tile": 2}))
    assert outcome.gain("a") == 1.0
    best = outcome.best("a")
    assert best is not None and best.plan == {"tile": 2}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPARSEBENCH_PLANS", str(tmp_path))
    return tmp_path


def test_kept_are_the_plans_of_all_that_have_any_and_the_winner(folder: Path) -> None:
    outcome = found(
        ran("a", 60.0, plan={"tile": 1}, own=True), ran("a", 40.0, plan={"tile": 2}), ran("b", 30.0, own=True),
        Candidate("c", status="unsupported", reason="not mine"),
    )  # fmt: skip
    keep(outcome, "2026-11-21T00:00:00+00:00")
    assert tuned_plan("a", PROBLEM) == {"tile": 2}
    assert tuned_plan("b", PROBLEM) is None, "it proposed no plan"
    assert plans.read().plans["a"][plans.problem_key(PROBLEM)].gain == pytest.approx(1.5)
    kept = plans.fastest(PROBLEM, "both")
    assert kept is not None
    assert (kept.backend, kept.winner) == ("b", "b")
    assert kept.times_ns == pytest.approx({"dense": DENSE, "a": 40.0, "b": 30.0})
    assert set(kept.codes) == {"torch-dense", "a", "b", "c"}
    assert plans.fastest(PROBLEM, "forward") is None


def test_that_dense_is_fastest_is_kept_too(folder: Path) -> None:
    keep(found(ran("a", 100.0)), "now")
    kept = plans.fastest(PROBLEM, "both")
    assert kept is not None and kept.winner == ""


def test_nothing_is_known_where_the_dense_layer_could_not_be_timed(folder: Path) -> None:
    dense = Candidate("torch-dense", status="oom", reason="too large")
    keep(Outcome(("fc",), PROBLEM, "both", dense, (), {"torch-dense": Code("m", "")}), "now")
    assert plans.fastest(PROBLEM, "both") is None
