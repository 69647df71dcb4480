"""A whole run as one call, from Python, and what a run folder must say to be gone on with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import sparsebench
from sparsebench.errors import RunError, UsageError
from sparsebench.harness.crew import Limits
from sparsebench.harness.plan import Selection
from sparsebench.harness.session import plan_resume, plan_run
from sparsebench.runs.records import TIMED
from sparsebench.runs.store import Run


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
            "backends": ["torch-csr"], "expression": "", "threads": None, "blocks": None, "seed": None,
            "quick": True, "shard": [1, 1],
        },
        "files": [],
    }  # fmt: skip


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


def test_nothing_is_started_for_a_name_that_nobody_has(tiny_suite: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no backend is named 'torch-crs'; did you mean 'torch-csr'"):
        plan_run(tiny_suite, Selection(backends=("torch-crs",)), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
