"""The race of `tune` over workers that answer as a script says: who is looked at, raced, given up, and who wins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sparsebench.harness import tuning
from sparsebench.harness.cells import Cell
from sparsebench.harness.crew import Limits
from sparsebench.harness.outcomes import Candidate, Outcome
from sparsebench.harness.plan import Plan
from sparsebench.harness.server import NOBODY, Failure, ServerLost
from sparsebench.harness.targets import Target, Wanted, find_target
from sparsebench.harness.tuning import FINALISTS, PLANS_OFF, finalists, tune
from sparsebench.plans import Code
from sparsebench.registry import Entry, Registry

DENSE = 1e6
PATIENT = {"a": 2 * DENSE, "b": 2 * DENSE}
Script = Mapping[str, Any]


class Crew:
    """Answers by variant: the nanoseconds of a repetition, or by (variant, request) a failure."""

    def __init__(self, plan: Plan, folder: Path, script: Script, plans: Mapping[str, Any]) -> None:
        self.plan, self.folder, self.script, self.plans = plan, folder, dict(script), plans
        self.block = self.strays = 0
        self.unfit: dict[Any, Any] = {}
        self.log: list[str] = []

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def ensure_oracle(self, cell: Cell) -> None:
        if "oracle" in self.script:
            raise self.script["oracle"]

    def order(self, cell: Cell, variant: str) -> dict[str, Any]:
        return {}

    def oracle(self, cell: Cell) -> Path:
        return self.folder / "oracle"

    def printed(self, variant: str) -> int:
        return 0

    def dismiss(self, variant: str) -> None:
        self.log.append(f"{variant} dismiss")

    def ask(self, variant: str, request: Mapping[str, Any]) -> dict[str, Any]:
        do = request["do"]
        self.log.append(f"{variant} {do}")
        failure = self.script.get(f"{variant} {do}")
        if isinstance(failure, list):
            failure = failure.pop(0) if failure else None
        if failure is not None:
            raise failure
        time_ns = self.script.get(variant, DENSE)
        if do == "plans":
            return {"plans": self.plans.get(variant, []), "code": {"module": variant, "sha256": "abc"},
                    "dense": variant.endswith("dense")}  # fmt: skip
        if do == "glance":
            return {"each_ns": time_ns, "note": ""}
        if do == "prepare":
            return {"each_ns": time_ns, "note": "", "verify": {"max_rel_err": 0.0, "tolerance": 1.0}}
        if do == "lap":
            wall = time_ns * request["loops"]
            cpu = wall * self.script.get("cpu", 1.0)
            return {"wall_ns": wall, "cpu_ns": cpu, "switches": 0, "splits_ns": {}, "metrics": {}}
        return {"rss_peak": 0, "canary": [1.0, 1.0]}


@pytest.fixture
def registry_of_plans(backend: Callable[..., Entry]) -> Registry:
    options = {"tile": (1, 2, 4, 8), "isa": ("base", "avx2")}
    made = [
        backend("torch-dense"),
        backend("other-dense"),
        backend("mine", options=options),
        backend("plain"),
        backend("narrow", precision="bfloat16"),
        backend("lacking", requires=("no_such_package",)),
    ]
    return Registry(backends={entry.spec.name: entry for entry in made})


@pytest.fixture
def race(
    registry_of_plans: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Outcome, Crew]]:
    """Tunes one layer over `backends`; the outcome and the crew with its log."""

    def run(
        script: Script,
        plans: Mapping[str, Any] | None = None,
        backends: tuple[str, ...] = ("mine",),
        named: tuple[str, ...] = (),
    ) -> tuple[Outcome, Crew]:
        crews: list[Crew] = []

        def make(plan: Plan, folder: Path, *, settings: Mapping[str, str], **_: Any) -> Crew:
            assert settings == PLANS_OFF, "what was tuned before must not decide what is measured now"
            crews.append(Crew(plan, folder, script, plans or {}))
            return crews[-1]

        monkeypatch.setattr(tuning, "Crew", make)
        target = find_target("linear:8x6", registry_of_plans, Wanted(shape=(4, 6)), Limits())
        (outcome,) = tune(target, registry_of_plans, backends, Limits(), lambda *_: None, named)
        return outcome, crews[0]

    return run


Race = Callable[..., tuple[Outcome, Crew]]
TILES = {"mine": [{"tile": 1}, {"tile": 2}, {"tile": 4}]}


def state(outcome: Outcome) -> dict[str, str]:
    return {each.variant: each.status + ("" if each.raced else " not raced") for each in outcome.candidates}


def test_every_plan_of_every_backend_is_raced_beside_the_dense_layer(race: Race) -> None:
    times = {"mine@tile=1": 8e5, "mine@tile=2": 6.4e5, "mine@tile=4": 7e5, "plain": 9e5}
    outcome, _ = race(times, TILES, ("mine", "plain"))
    assert state(outcome) == {"mine@tile=1": "ok", "mine@tile=2": "ok", "mine@tile=4": "ok", "plain": "ok"}
    assert [each.variant for each in outcome.candidates if each.own] == ["mine@tile=1", "plain"]
    winner, plain = outcome.fastest(), outcome.best("plain")
    assert winner is not None and plain is not None
    assert (winner.variant, winner.ratio) == ("mine@tile=2", pytest.approx(1 / 0.64))
    assert outcome.gain("mine") == pytest.approx(8 / 6.4)
    assert plain.plan is None
    assert outcome.dense.time_ns == DENSE
    assert outcome.codes == {name: Code(name, "abc") for name in ("torch-dense", "mine", "plain")}


def test_rounds_visit_all_in_turn(race: Race) -> None:
    _, crew = race({"mine@tile=1": 8e5, "mine@tile=2": 7e5}, {"mine": [{"tile": 1}, {"tile": 2}]})
    laps = [line.removesuffix(" lap") for line in crew.log if line.endswith(" lap")]
    rounds = [laps[i : i + 3] for i in range(0, len(laps), 3)]
    assert all(sorted(each) == ["mine@tile=1", "mine@tile=2", "torch-dense"] for each in rounds)
    assert len({tuple(each) for each in rounds}) > 1, "the order changes from round to round"


def test_a_backend_without_plans_runs_under_its_own_name(race: Race) -> None:
    outcome, crew = race({"mine": 5e5})
    assert state(outcome) == {"mine": "ok"}
    assert outcome.candidates[0].plan is None
    assert "mine dismiss" not in crew.log[: crew.log.index("mine glance")], "the worker that was asked goes on"


def test_fixed_options_stay_and_plans_come_on_top(race: Race) -> None:
    plans = {"mine@isa=avx2": [{"tile": 1}, {"tile": 2}, {"tile": 2}]}
    outcome, crew = race({"mine@isa=avx2,tile=2": 5e5}, plans, ("mine@isa=avx2",))
    assert list(state(outcome)) == ["mine@isa=avx2,tile=1", "mine@isa=avx2,tile=2"], "each plan once"
    assert crew.plan.backends["mine@isa=avx2,tile=2"][1] == {"isa": "avx2", "tile": 2}
    winner = outcome.fastest()
    assert winner is not None and winner.backend == "mine@isa=avx2"


def test_dense_layers_and_other_precisions_are_shown_and_do_not_win(race: Race) -> None:
    times = {"mine": 5e5, "other-dense": 3e5, "narrow": 1e5}
    outcome, _ = race(times, backends=tuple(times))
    assert [round(each.ratio or 0, 1) for each in outcome.candidates] == [2.0, 3.3, 10.0]
    winner = outcome.fastest()
    assert winner is not None and winner.backend == "mine"


def test_plans_that_contradict_a_fixed_option_are_left_out(race: Race) -> None:
    plans = {"mine@tile=4": [{"tile": 1, "isa": "base"}, {"tile": 4, "isa": "base"}, {"isa": "avx2"}]}
    outcome, _ = race({}, plans, ("mine@tile=4",))
    assert list(state(outcome)) == ["mine@isa=base,tile=4", "mine@isa=avx2,tile=4"]
    outcome, _ = race({}, {"mine@tile=4": [{"tile": 1}]}, ("mine@tile=4",))
    assert list(state(outcome)) == ["mine@tile=4"]


@pytest.mark.parametrize("when", ["glance", "prepare", "lap", "finish"])
def test_a_plan_that_is_wrong_at_any_time_never_wins(race: Race, when: str) -> None:
    script = {"mine@tile=1": 8e5, "mine@tile=2": 1e5, f"mine@tile=2 {when}": Failure("wrong", "off by much")}
    script["mine@tile=4"] = 1.1e5
    outcome, _ = race(script, TILES)
    wrong = next(each for each in outcome.candidates if each.variant == "mine@tile=2")
    assert (wrong.status, wrong.reason) == ("wrong", "off by much")
    winner = outcome.fastest()
    assert winner is not None and winner.variant == "mine@tile=4"


@pytest.mark.parametrize("status", ["crash", "timeout", "oom", "error"])
def test_what_becomes_of_one_plan_costs_the_others_nothing(race: Race, status: Any) -> None:
    failure = Failure(status, "because")
    outcome, _ = race({"mine@tile=2 glance": failure, "mine@tile=4": 5e5}, TILES)
    assert state(outcome)["mine@tile=2"] == f"{status} not raced"
    winner = outcome.fastest()
    assert winner is not None and winner.variant == "mine@tile=4"


def test_a_backend_that_cannot_be_asked_is_a_row_with_its_reason(race: Race) -> None:
    script = {"mine plans": Failure("unsupported", "not on a Monday"), "plain": 5e5}
    outcome, _ = race(script, backends=("mine", "plain", "lacking"))
    assert state(outcome) == {"mine": "unsupported not raced", "plain": "ok", "lacking": "skipped not raced"}
    assert outcome.candidates[0].reason == "not on a Monday"
    assert "no_such_package is not installed" in outcome.candidates[-1].reason
    assert "mine" in outcome.codes, "it was tried, so its absence is no reason to measure again"


def test_a_plan_that_its_options_do_not_allow_is_an_error_that_says_so(race: Race) -> None:
    outcome, crew = race({"mine@tile=2": 5e5}, {"mine": [{"tile": 3}, {"width": 1}, {"tile": 2}]})
    assert state(outcome) == {"mine@tile=3": "error not raced", "mine@width=1": "error not raced", "mine@tile=2": "ok"}
    assert "tile = '3' is not possible" in outcome.candidates[0].reason
    assert "'width' is not an option" in outcome.candidates[1].reason
    assert "mine@tile=3 glance" not in crew.log


def test_who_hangs_again_and_again_is_not_asked_again(race: Race) -> None:
    plans = {"mine": [{"tile": tile} for tile in (1, 2, 4, 8)]}
    outcome, crew = race({f"mine@tile={tile} glance": Failure("timeout", "hung") for tile in (1, 2, 4, 8)}, plans)
    assert outcome.candidates[-1].reason == "not tried: it hung 3 times before"
    assert "mine@tile=8 glance" not in crew.log


def test_a_server_that_dies_before_is_held_against_nobody(race: Race) -> None:
    outcome, crew = race({"mine glance": [ServerLost("crash", NOBODY)], "mine": 5e5})
    assert state(outcome) == {"mine": "ok"}
    assert crew.log.count("mine glance") == 2


def test_without_an_oracle_nobody_is_measured(race: Race) -> None:
    outcome, crew = race({"oracle": Failure("oom", "too large")})
    assert (outcome.dense.status, outcome.candidates, crew.log) == ("oom", (), [])
    assert outcome.fastest() is None


def test_what_is_far_behind_is_not_raced_unless_it_was_named(race: Race) -> None:
    script = {"mine": 3e6, "plain": 5e5}
    outcome, _ = race(script, backends=("mine", "plain"))
    assert state(outcome) == {"mine": "ok not raced", "plain": "ok"}
    assert outcome.candidates[0].ratio == pytest.approx(1 / 3)
    outcome, _ = race(script, backends=("mine", "plain"), named=("mine",))
    assert state(outcome) == {"mine": "ok", "plain": "ok"}


def test_a_disturbed_race_is_run_again_and_then_said(race: Race) -> None:
    outcome, crew = race({"mine": 5e5, "cpu": 0.5})
    assert outcome.noisy
    assert crew.log.count("mine finish") == tuning.ATTEMPTS
    assert not race({"mine": 5e5})[0].noisy


def glanced(name: str, *times: float, own: int = 0) -> list[Candidate]:
    return [Candidate(name, {"tile": i}, own=i == own, time_ns=time_ns) for i, time_ns in enumerate(times)]


def test_finalists_are_the_own_choice_and_what_is_near_the_best() -> None:
    seen = glanced("a", 1.9e6, 1.0e6, 1.2e6, 1.5e6) + glanced("b", 3e6, 2.5e6)
    assert sorted(finalists(seen, PATIENT)) == ["a@tile=0", "a@tile=1", "a@tile=2"]


def test_finalists_are_few() -> None:
    seen = glanced("a", *[1e6] * 20, own=19)
    chosen = finalists(seen, PATIENT)
    assert len(chosen) == FINALISTS + 1
    assert "a@tile=19" in chosen


def test_a_candidate_that_failed_is_no_finalist() -> None:
    seen = [replace(each, status="wrong") for each in glanced("a", 1e6)]
    assert finalists(seen, PATIENT) == []


def test_cells_of_other_thread_counts_have_workers_of_their_own(
    registry_of_plans: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []

    def make(plan: Plan, folder: Path, *, threads: int, **_: Any) -> Crew:
        made.append(threads)
        return Crew(plan, folder, {}, {})

    monkeypatch.setattr(tuning, "Crew", make)
    targets = [
        find_target("linear:8x6", registry_of_plans, Wanted(shape=(4, 6), threads=threads), Limits())
        for threads in (2, 1)
    ]
    both = Target("x", [cell for each in targets for cell in each.cells], targets[0].layers)
    told: list[tuple[int, int]] = []
    outcomes = list(tune(both, registry_of_plans, ["mine"], Limits(), lambda _, *where: told.append(where)))
    assert made == [1, 2]
    assert [each.problem.threads for each in outcomes] == [1, 2]
    assert set(told) == {(0, 2), (1, 2)}
