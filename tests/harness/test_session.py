"""A whole run as one call, from Python, and what a run folder must say to be gone on with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import sparsebench
from sparsebench.errors import RunError, UsageError
from sparsebench.harness import session
from sparsebench.harness.crew import Limits
from sparsebench.harness.plan import Plan, Selection
from sparsebench.harness.session import plan_resume, plan_run
from sparsebench.runs.records import TIMED, Ceilings
from sparsebench.runs.store import Run

Planned = Callable[..., Plan]


@pytest.fixture(scope="module")
def run(tiny_suite: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("session") / "run"
    return sparsebench.run(tiny_suite, backends=["torch-csr"], quick=True, out=folder)


def test_a_run_from_python_is_a_run(run: Run) -> None:
    assert [(s.variant, s.cell["pass"]) for s in run.samples] in (
        [("torch-dense", "forward"), ("torch-csr", "forward")],
        [("torch-csr", "forward"), ("torch-dense", "forward")],
    )
    assert all(s.status in TIMED and len(s.t_ns) == 3 for s in run.samples)
    assert sparsebench.load_run(run.path).samples == run.samples


def test_run_json_says_what_was_selected(run: Run) -> None:
    assert run.info.options == {
        "selection": {
            "backends": ["torch-csr"],
            "methods": [], "expression": "", "threads": None, "blocks": None, "seed": None,
            "quick": True, "shard": [1, 1],
        },
        "files": [],
        "keep_models": False,
    }  # fmt: skip


def test_run_json_has_the_ceilings_of_each_number_of_threads(run: Run) -> None:
    (one,) = run.info.host["ceilings"]
    assert one["threads"] == 1
    assert one["gflops"] > 0.1
    assert one["levels"][-1]["name"] == "memory"
    assert run.info.suite["details"] is False
    assert run.info.peers == ["torch-csr"]


def test_ceilings_are_measured_where_the_workers_work(planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def measured(threads: int, cores: list[int], environment: dict[str, str]) -> Ceilings:
        asked.append((threads, cores, environment["OMP_NUM_THREADS"]))
        return Ceilings(threads=threads, isa="base", gflops=1.0, levels=())

    monkeypatch.setattr(session, "measure_apart", measured)
    monkeypatch.setattr(session, "cores_allowed", lambda: [3, 5, 7])
    kernel = '[[kernel]]\nname = "a"\nop = "linear"\nout_features = 8\nin_features = 6\nthreads = [2, 1]\n'
    model = '[[training]]\nname = "b"\nmodel = "mlp"\ndataset = "digits"\nthreads = [3]\n'
    found = session.measured_ceilings(planned(kernel + model))
    assert asked == [(1, [3], "1"), (2, [3, 5], "2")]
    assert [each["threads"] for each in found["ceilings"]] == [1, 2]
    asked.clear()
    assert session.measured_ceilings(planned(model)) == {}
    assert not asked, "models have no ceilings"


def test_a_run_goes_on_without_ceilings_and_says_why(planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> None:
        raise RunError("the machine's ceilings could not be measured: no such module")

    monkeypatch.setattr(session, "measure_apart", failing)
    kernel = '[[kernel]]\nname = "a"\nop = "linear"\nout_features = 8\nin_features = 6\n'
    assert session.measured_ceilings(planned(kernel)) == {
        "ceilings_error": "the machine's ceilings could not be measured: no such module"
    }


def test_a_resumed_run_keeps_the_ceilings_it_began_with(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run.path, folder)
    monkeypatch.setattr(session, "measure_apart", lambda *_: pytest.fail("measured again"))
    with plan_resume(folder, Limits()).open() as writer:
        assert writer.info.host["ceilings"] == run.info.host["ceilings"]


@pytest.mark.parametrize("change", [{"options": {}}, {"options": {"selection": {"nonsense": 1}, "files": []}}])
def test_a_run_that_does_not_say_what_was_selected_is_not_gone_on_with(
    run: Run, tmp_path: Path, change: dict[str, object]
) -> None:
    head = json.loads((run.path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(head | change))
    with pytest.raises(RunError, match=r"run\.json does not say what was selected"):
        plan_resume(tmp_path, Limits())


def test_a_run_whose_suite_was_edited_is_not_gone_on_with(run: Run, tmp_path: Path) -> None:
    head = json.loads((run.path / "run.json").read_text())
    head["suite"]["text"] += "# edited\n"
    (tmp_path / "run.json").write_text(json.dumps(head))
    with pytest.raises(RunError, match="the suite changed since it began"):
        plan_resume(tmp_path, Limits())


def test_a_run_without_its_suite_is_not_gone_on_with(run: Run, tmp_path: Path) -> None:
    head = json.loads((run.path / "run.json").read_text())
    head["suite"] = {"name": "tiny"}
    (tmp_path / "run.json").write_text(json.dumps(head))
    with pytest.raises(RunError, match="does not hold the suite's text; start a new run"):
        plan_resume(tmp_path, Limits())


def test_nothing_is_started_for_a_name_that_nobody_has(tiny_suite: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no backend is named 'torch-crs'; did you mean 'torch-csr'"):
        plan_run(tiny_suite, Selection(backends=("torch-crs",)), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_merged_without_a_shard_is_not_gone_on_with(run: Run, tmp_path: Path) -> None:
    """It would measure all of the missing shard, whose cells are not in run.json: nobody would see them."""
    head = json.loads((run.path / "run.json").read_text())
    head["options"]["shards"] = {"merged": ["a", "b"], "missing": [2], "of": 3}
    (tmp_path / "run.json").write_text(json.dumps(head))
    with pytest.raises(RunError, match="merged without 1 of its 3 shards; go on with the shards"):
        plan_resume(tmp_path, Limits())
