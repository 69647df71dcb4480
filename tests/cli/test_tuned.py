"""What `sparsebench tune` says and keeps of what it found, without measuring anything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sparsebench import plans
from sparsebench.cli import tuned
from sparsebench.harness.outcomes import Candidate, Outcome
from sparsebench.harness.targets import Target
from sparsebench.harness.tuning import HOPELESS
from sparsebench.plans import Code
from sparsebench.problem import Problem

Call = Callable[..., Any]


class Scripted:
    """Gives outcomes without measuring, then is interrupted."""

    def __init__(self, outcomes: list[Outcome], interrupted: bool = False) -> None:
        self.outcomes, self.interrupted = outcomes, interrupted

    def __call__(self, *_: Any, **__: Any) -> Any:
        yield from self.outcomes
        if self.interrupted:
            raise KeyboardInterrupt


def outcome(*candidates: Candidate, layers: tuple[str, ...] = ("fc",), batch: int = 4) -> Outcome:
    problem = Problem(op="linear", out_features=64, in_features=48, batch=batch)
    dense = Candidate("torch-dense", time_ns=2e6, ratio=1.0, raced=True)
    return Outcome(layers, problem, "both", dense, candidates, {"cython": Code("m", "x")})


def ran(backend: str, ratio: float, **rest: Any) -> Candidate:
    return Candidate(backend, **{"time_ns": 2e6 / ratio, "ratio": ratio, "raced": True, **rest})


@pytest.fixture
def scripted(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    def run(*outcomes: Outcome, interrupted: bool = False, options: tuple[str, ...] = ()) -> Any:
        monkeypatch.setenv("SPARSEBENCH_PLANS", str(tmp_path))
        monkeypatch.setattr("sparsebench.harness.tuning.tune", Scripted([*outcomes], interrupted))
        return call("tune", "linear:64x48", "--input", "4x48", *options)

    return run


def test_noise_is_marked_and_not_kept(scripted: Call, tmp_path: Path) -> None:
    noisy = outcome(ran("cython", 2.0, status="contaminated", own=True))
    code, out, _ = scripted(noisy)
    assert code == 0
    assert "2.00x*?" in out
    assert "Kept nothing.\nNot kept: where something else had the core (?)" in out
    assert "Next: sparsebench doctor" in out
    assert plans.fastest(noisy.problem, "both") is None
    assert "Kept 1 of 1" in scripted(noisy, options=("--keep-noisy",)).out
    assert plans.fastest(noisy.problem, "both") is not None


def test_without_saving_nothing_is_kept(scripted: Call) -> None:
    found = outcome(ran("cython", 2.0))
    seen = scripted(found, options=("--no-save",))
    assert "Kept nothing, as --no-save says" in seen.out
    assert seen.out.endswith("Next: the same without --no-save\n")
    assert plans.fastest(found.problem, "both") is None


def test_what_was_found_before_an_interruption_is_kept(scripted: Call) -> None:
    done = outcome(ran("cython", 2.0, own=True))
    code, out, err = scripted(done, interrupted=True)
    assert code == 130
    assert "2.00x*" in out
    assert "interrupted: 1 of 1 problems were tuned, what is kept stays" in err
    assert plans.fastest(done.problem, "both") is not None


def test_next_is_python_for_what_is_no_suite(scripted: Call) -> None:
    assert "Next: torch.set_num_threads(1); sparsebench.sparsify(model" in scripted(outcome(ran("cython", 2.0))).out


@pytest.mark.parametrize(("name", "named", "code"), [("scipy", False, 0), ("scipy", True, 3), ("cython", False, 3)])
def test_a_peer_that_nobody_named_fails_nothing(scripted: Call, name: str, named: bool, code: int) -> None:
    found = outcome(Candidate(name, status="wrong", reason="off by much"))
    seen = scripted(found, options=("--backend", name) if named else ())
    assert seen.code == code
    assert f"  {name}: fc: wrong: off by much" in seen.out


def text(*outcomes: Outcome, left: dict[str, str] | None = None) -> str:
    return tuned.as_text(Target("net", [], {}, left or {}), outcomes, outcomes)


def test_the_table_says_who_is_fastest_who_was_not_raced_and_who_failed() -> None:
    printed = text(
        outcome(ran("cython", 1.5), Candidate("slow", time_ns=9e6, ratio=1 / (2 * HOPELESS)), layers=("fc", "fc2")),
        outcome(ran("cython", 0.9), Candidate("slow", status="unsupported", reason="not mine"), layers=("out",)),
        left={"odd": "its weight is shared"},
    )
    head, table, legend, total, others, left, _ = printed.split("\n\n")
    assert head.startswith("net, 0.9 sparse, uniform, batch 4, 1 thread, forward and backward; ratios to dense torch")
    rows = [line.split() for line in table.splitlines()]
    assert rows[0] == ["layer", "dense", "ms", "cython", "slow"]
    assert rows[2:] == [
        ["fc", "+1", "2", "1.50x*", "~0.25x"], ["·", "48->64"],
        ["out", "2", "0.90x", "unsupported"], ["·", "48->64"],
    ]  # fmt: skip
    assert "* the fastest; ~ too slow to be raced" in legend
    assert total == "All layers at 0.9: dense 6 ms, each with its fastest 4.67 ms, 1.29x"
    assert others == "  slow: unsupported: not mine"
    assert left == "  odd stays dense: its weight is shared"


def test_what_differs_from_row_to_row_stands_in_the_rows() -> None:
    printed = text(outcome(ran("cython", 1.5)), outcome(ran("cython", 1.5), batch=8))
    assert "· 48->64, batch 8" in printed
    assert "net, 0.9 sparse, uniform, 1 thread, forward" in printed


def test_the_slowest_give_way_where_a_table_would_be_too_wide() -> None:
    names = [f"a-backend-{i}" for i in range(12)]
    printed = text(outcome(*[ran(name, 1.0 + i) for i, name in enumerate(names)]))
    table = printed.split("\n\n")[1].splitlines()
    assert max(map(len, table[:-1])) <= 100
    assert "a-backend-11" in table[0]
    assert table[-1].startswith("and slower: ") and table[-1].endswith("a-backend-1, a-backend-0")


def test_nobody_is_faster() -> None:
    assert "nobody is faster than dense torch" in text(outcome(ran("cython", 0.5)))
    assert text() == "nothing was found"
