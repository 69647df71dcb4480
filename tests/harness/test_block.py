"""One cell of one block as a log of what was asked of whom; a variant that fails never takes another with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from sparsebench.harness import block, policy
from sparsebench.harness.plan import Plan
from sparsebench.harness.server import Failure, ServerLost
from sparsebench.runs.records import Sample

MS = 1e6
CASE = '[[kernel]]\nname = "one"\nop = "linear"\nout_features = 8\nin_features = 6\nrounds = 4\n'
ROUNDS, DISCARDED = 4, policy.schedule({"a": MS}, 4, streams=False).discarded
Answer = dict[str, Any] | Failure
Script = Mapping[tuple[str, str], Callable[[int], Answer]]  # (variant, request) -> answer to the n-th of them


class Crew:
    """Answers as a script says, and writes down who was asked what."""

    def __init__(self, script: Script | None = None, oracle: Failure | None = None) -> None:
        self.script, self.oracle = script or {}, oracle
        self.block = 0
        self.unfit: dict[tuple[str, str], Failure] = {}
        self.log: list[str] = []
        self.requests: list[Mapping[str, Any]] = []
        self.asked: dict[tuple[str, str], int] = {}

    def ask(self, variant: str, request: Mapping[str, Any]) -> dict[str, Any]:
        what = request["do"]
        self.log.append(f"{what} {variant}")
        self.requests.append(request)
        number = self.asked.get((variant, what), 0)
        self.asked[variant, what] = number + 1
        answer = self.script.get((variant, what), lambda _: usual(what, request))(number)
        if isinstance(answer, Failure):
            raise answer
        return answer

    def ensure_oracle(self, cell: object) -> None:
        if self.oracle:
            raise self.oracle

    def order(self, cell: object, variant: str) -> dict[str, Any]:
        return {}

    def printed(self, variant: str) -> int:
        return 10 * len(self.log)

    def laps(self) -> str:
        return " ".join(line.split()[1] for line in self.log if line.startswith("lap"))


def usual(what: str, request: Mapping[str, Any]) -> dict[str, Any]:
    answers: dict[str, dict[str, Any]] = {
        "prepare": {"each_ns": 1 * MS, "note": "", "verify": {"max_rel_err": 1e-7, "tolerance": 1e-6}},
        "lap": {"wall_ns": 5 * MS, "cpu_ns": 5 * MS, "switches": 0, "splits_ns": {}, "metrics": {}},
        "finish": {"rss_peak": 1000, "canary": [1.0, 2.0]},
    }
    return answers[what]


def failing(status: Any, reason: str = "because", at: int = 0) -> Callable[[int], Answer]:
    """A failure at the `at`-th request; before it, what is usual of a lap."""
    return lambda number: Failure(status, reason) if number >= at else usual("lap", {})


@pytest.fixture
def run(planned: Callable[..., Plan]) -> Callable[..., dict[str, Sample]]:
    """Measures the cell of CASE with variants named by letters."""
    (cell,) = planned(CASE).cells

    def measured(crew: Crew, variants: str = "abc") -> dict[str, Sample]:
        samples = block.measure(crew, cell, [*variants], "run", 0)  # type: ignore[arg-type]
        assert [s.variant for s in samples] == [*variants], "a row is never lost"
        assert all(bool(s.t_ns) == (s.status in ("ok", "contaminated")) for s in samples)
        return {sample.variant: sample for sample in samples}

    return measured


Run = Callable[..., dict[str, Sample]]


def test_everybody_is_prepared_then_visited_in_rounds_then_looked_at_again(run: Run) -> None:
    crew = Crew()
    samples = run(crew)
    kinds = [line.split()[0] for line in crew.log]
    assert kinds == ["prepare"] * 3 + ["lap"] * 3 * (DISCARDED + ROUNDS) + ["finish"] * 3
    laps = crew.laps().split()
    assert all(sorted(laps[i : i + 3]) == ["a", "b", "c"] for i in range(0, len(laps), 3))
    for sample in samples.values():
        assert sample.status == "ok"
        assert sample.t_ns == [1 * MS] * ROUNDS, "the first rounds are discarded; a lap of five loops takes 5 ms"
        assert sample.loops == 5
        assert len(sample.order) == 4
        assert sample.rss_peak == 1000
        assert sample.canary == [1.0, 2.0]
        assert sample.verify == {"max_rel_err": 1e-7, "tolerance": 1e-6}


def test_the_same_run_and_block_ask_in_the_same_order(run: Run) -> None:
    one, other = Crew(), Crew()
    later = Crew()
    later.block = 1
    for crew in (one, other, later):
        run(crew)
    assert one.log == other.log != later.log


def test_the_places_that_are_written_down_are_those_of_the_log(run: Run) -> None:
    crew = Crew()
    samples = run(crew)
    laps = crew.laps().split()[3 * DISCARDED :]
    rounds = [laps[i : i + 3] for i in range(0, len(laps), 3)]
    for name, sample in samples.items():
        assert sample.order == [order.index(name) for order in rounds]


def test_what_ran_can_be_read(run: Run) -> None:
    """The log of a cell, a word for each round; and the same rounds, but those discarded, from what is written down."""
    crew = Crew()
    samples = run(crew)
    laps = crew.laps().replace(" ", "")
    asked = "".join(line.split()[1] for line in crew.log if line.startswith("prepare"))
    rounds = [laps[i : i + 3] for i in range(0, len(laps), 3)]
    assert f"prepare {asked}, laps {' '.join(rounds)}" == "prepare acb, laps cab acb bac cba bca"
    places = zip(*(samples[name].order for name in "abc"), strict=True)
    written = ["".join(sorted("abc", key=dict(zip("abc", place, strict=True)).get)) for place in places]  # type: ignore[arg-type]
    assert " ".join(written) == "acb bac cba bca"


def test_only_the_first_block_examines_everything(run: Run) -> None:
    seen = []
    for number in (0, 1):
        crew = Crew()
        crew.block = number
        run(crew)
        seen.append({request["brief"] for request in crew.requests if request["do"] == "prepare"})
    assert seen == [{False}, {True}]


@pytest.mark.parametrize("status", ["wrong", "error", "crash", "timeout", "oom", "unsupported"])
def test_who_fails_to_prepare_is_not_timed_and_the_others_are(run: Run, status: str) -> None:
    crew = Crew({("b", "prepare"): failing(status)})
    samples = run(crew)
    assert (samples["b"].status, samples["b"].reason, samples["b"].t_ns) == (status, "because", [])
    assert samples["a"].status == samples["c"].status == "ok"
    assert "b" not in crew.laps()


def test_who_fails_in_a_round_leaves_the_others_in_peace(run: Run) -> None:
    crew = Crew({("b", "lap"): failing("wrong", "drifted", at=3)})
    samples = run(crew)
    assert (samples["b"].status, samples["b"].reason, samples["b"].t_ns) == ("wrong", "drifted", [])
    assert samples["b"].verify, "what was verified before is kept"
    assert crew.laps().count("b") == 4
    assert crew.laps().count("a") == crew.laps().count("c") == DISCARDED + ROUNDS
    assert samples["a"].status == samples["c"].status == "ok"


def test_who_is_wrong_after_the_last_sample_has_no_time(run: Run) -> None:
    samples = run(Crew({("c", "finish"): failing("wrong", "after the last sample: forward")}))
    assert (samples["c"].status, samples["c"].t_ns) == ("wrong", [])
    assert samples["a"].status == samples["b"].status == "ok"


@pytest.mark.timeout(10)
def test_a_cell_in_which_everybody_fails_ends(run: Run) -> None:
    samples = run(Crew({(name, "prepare"): failing("error") for name in "abc"}))
    assert {s.status for s in samples.values()} == {"error"}


@pytest.mark.timeout(10)
def test_without_an_oracle_nobody_is_asked(run: Run) -> None:
    crew = Crew(oracle=Failure("oom", "too large"))
    samples = run(crew)
    assert crew.log == []
    assert {(s.status, s.reason) for s in samples.values()} == {
        ("oom", "the oracle could not be computed: too large"),
    }  # fmt: skip


def test_who_failed_in_one_pass_is_not_prepared_for_the_next_of_its_group(planned: Callable[..., Plan]) -> None:
    forward, both = planned(CASE + 'pass = ["forward", "both"]').cells
    crew = Crew({("b", "prepare"): failing("timeout", "bind did not end")})
    first = block.measure(crew, forward, ["a", "b"], "run", 0)  # type: ignore[arg-type]
    second = block.measure(crew, both, ["a", "b"], "run", 0)  # type: ignore[arg-type]
    assert crew.log.count("prepare b") == 1
    assert crew.log.count("prepare a") == 2
    assert [(s.status, s.reason) for s in (first[1], second[1])] == [("timeout", "bind did not end")] * 2
    assert second[1].cell["pass"] == "both"


def test_who_takes_the_fork_server_down_fails_and_the_others_begin_again(run: Run) -> None:
    lost: Answer = ServerLost("crash", "the fork server ended during lap")
    crew = Crew({("b", "lap"): lambda number: lost if number == 3 else usual("lap", {})})
    samples = run(crew)
    assert (samples["b"].status, samples["b"].reason) == ("crash", "the fork server ended during lap")
    assert samples["a"].status == samples["c"].status == "ok"
    assert len(samples["a"].t_ns) == len(samples["c"].t_ns) == 4
    after = crew.log[crew.log.index("lap b") :]
    assert [line for line in after if line.startswith("prepare")] != []
    assert "prepare b" not in after


def test_a_round_that_was_disturbed_is_named_for_everybody(run: Run) -> None:
    def disturbed(number: int) -> Answer:
        return usual("lap", {}) | ({"wall_ns": 9 * MS} if number == DISCARDED + 1 else {})

    samples = run(Crew({("b", "lap"): disturbed}))
    assert [s.dropped for s in samples.values()] == [[1]] * 3
    assert {s.status for s in samples.values()} == {"ok"}
    assert samples["b"].t_ns[1] == 9 * MS / 5, "nothing is deleted"


def test_a_block_that_was_mostly_disturbed_says_so(run: Run) -> None:
    def disturbed(number: int) -> Answer:
        return usual("lap", {}) | ({"wall_ns": 9 * MS} if number >= DISCARDED + 2 else {})

    samples = run(Crew({("b", "lap"): disturbed}))
    for sample in samples.values():
        assert sample.status == "contaminated"
        assert sample.reason == "something else had the core in 2 of 4 rounds"
        assert len(sample.t_ns) == 4


def test_splits_are_medians_over_the_rounds_that_count_and_metrics_the_last(run: Run) -> None:
    def step(number: int) -> Answer:
        return usual("lap", {}) | {"splits_ns": {"forward": 1.0 * number}, "metrics": {"loss": 1.0 * number}}

    sample = run(Crew({("a", "lap"): step}), "ab")["a"]
    assert sample.splits_ns == {"forward": DISCARDED + 1.5}  # of the last four rounds
    assert sample.metrics == {"loss": DISCARDED + 3.0}


def test_what_a_plugin_says_and_prints_is_noted(run: Run) -> None:
    crew = Crew({("a", "prepare"): lambda _: usual("prepare", {}) | {"note": "nchw"}})
    note = run(crew, "a")["a"].note
    assert note.startswith("nchw; printed ")
    assert note.endswith(" bytes")
