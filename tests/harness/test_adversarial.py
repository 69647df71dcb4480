"""All plugins of tests/adversarial in one run: each comes to its known end, and the others are timed beside it."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from sparsebench.harness.crew import Limits
from sparsebench.harness.plan import Selection
from sparsebench.harness.session import plan_run
from sparsebench.plugin import PluginInfo
from sparsebench.runs.records import TIMED, Sample
from sparsebench.runs.store import read_run

FOLDER = Path(__file__).parents[1] / "adversarial"
FILES = sorted(f for f in FOLDER.glob("*.py") if not f.name.startswith("test_"))
LIMITS = Limits(seconds=5.0, memory=2**30, import_seconds=8.0)  # a right answer takes a tenth of either
MARKS = ("adversarial-child",)  # in the command line of a process that a plugin leaves behind


class Outcome(NamedTuple):
    """What the run left."""

    rows: dict[str, list[Sample]]
    plugins: dict[str, PluginInfo]
    processes: list[str]
    folder: Path


def expected(file: Path) -> dict[str, str]:
    """The constant EXPECTED of a plugin file, read without importing it."""
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "EXPECTED":
            return ast.literal_eval(node.value)
    raise AssertionError(f"{file.name} has no EXPECTED")


@pytest.fixture(scope="module")
def outcome(tiny_suite: str, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """One run with every file as a plugin."""
    out = tmp_path_factory.mktemp("adversarial") / "run"
    before = set(psutil.pids())
    session = plan_run(tiny_suite, Selection(), files=[str(f) for f in FILES], limits=LIMITS, out=out)
    run = read_run(session.run())
    rows: dict[str, list[Sample]] = {}
    for sample in run.samples:
        rows.setdefault(sample.variant, []).append(sample)
    new = {p: " ".join(p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"]) if p.pid not in before}
    ours = {p: line for p, line in new.items() if any(mark in line for mark in MARKS)}
    _, left = psutil.wait_procs(ours, timeout=2)  # what was killed this moment is still being taken away
    workers = [ours[p] for p in left if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    children = [" ".join(p.cmdline()) for p in psutil.Process().children(recursive=True)]
    servers = [line for line in children if "sparsebench.harness.worker" in line]
    plugins = {Path(p.name).stem: p for p in session.registry.plugins if p.name.endswith(".py")}
    return Outcome(rows, plugins, workers + servers, out)


@pytest.mark.timeout(280)
@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_comes_to_its_known_end(file: Path, outcome: Outcome) -> None:
    want, name = expected(file), file.stem.replace("_", "-")
    if want["status"] == "quarantined":
        assert re.search(want["reason"], outcome.plugins[file.stem].error)
        assert name not in outcome.rows
        return
    samples = outcome.rows[name]
    assert {s.cell["pass"] for s in samples} == {"forward", "both"}, "a row was lost"
    for sample in samples:
        assert sample.status in want["status"].split("|") or (want["status"] == "ok" and sample.status in TIMED)
        assert re.search(want["reason"], sample.reason or "")
        assert bool(sample.t_ns) == (sample.status in TIMED), "only a row that is right has a time"


def test_the_baseline_is_timed_beside_them(outcome: Outcome) -> None:
    assert {s.status for s in outcome.rows["torch-dense"]} <= TIMED


def test_no_process_is_left(outcome: Outcome) -> None:
    assert outcome.processes == []


def test_what_a_plugin_printed_is_kept_and_noted(outcome: Outcome) -> None:
    assert any("printed" in s.note for s in outcome.rows["prints-much"])
    kept = list((outcome.folder / "output").glob("prints-much.*"))
    assert kept and kept[0].stat().st_size > 1000
