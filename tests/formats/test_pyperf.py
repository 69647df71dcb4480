"""What we write as pyperf's JSON, pyperf itself reads back."""

import subprocess
import sys
from pathlib import Path

import pyperf
import pytest

from sparsebench.errors import RunError, UsageError
from sparsebench.formats import export, formats
from sparsebench.runs.records import CellInfo, RunInfo, Sample
from sparsebench.runs.store import Run


def make_run(statuses: dict[str, str]) -> Run:
    """Two blocks of three rounds; round 1 of block 1 is dropped."""
    cell = {"sparsity": 0.9, "pass": "forward"}
    info = CellInfo(case="linear", kind="kernel", cell=cell, version="1", title="linear 8->8", blocks=2,
                    variants=list(statuses), baseline="torch-dense")  # fmt: skip
    samples = tuple(
        Sample(case="linear", cell=cell, variant=variant, block=block, status=status, loops=7,
               t_ns=[1e6, 2e6, 3e6] if status == "ok" else [], dropped=[1] if block else [])
        for block in range(2) for variant, status in statuses.items()
    )  # fmt: skip
    head = RunInfo(id="r1", argv=[], started="2026-11-20T23:00:00+00:00", suite={"name": "s"}, cells=[info])
    return Run(head, samples, (), Path("r1"))


def test_pyperf_reads_it():
    text = export(make_run({"torch-dense": "ok", "cython": "ok", "cpp": "wrong", "scipy": "skipped"}), "pyperf")
    suite = pyperf.BenchmarkSuite.loads(text)
    assert suite.get_benchmark_names() == [
        "linear[pass=forward,sparsity=0.9] torch-dense", "linear[pass=forward,sparsity=0.9] cython",
    ]  # fmt: skip
    bench = suite.get_benchmark("linear[pass=forward,sparsity=0.9] cython")
    assert [run.values for run in bench.get_runs()] == [(0.001, 0.002, 0.003), (0.001, 0.003)]
    assert bench.get_loops() == 7
    assert bench.get_dates()[0].year == 2026


def test_pyperfs_command_reads_it(tmp_path):
    file = tmp_path / "run.json"
    file.write_text(export(make_run({"torch-dense": "ok"}), "pyperf"))
    told = subprocess.run([sys.executable, "-m", "pyperf", "stats", str(file)], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert "Number of run with values: 2" in told.stdout


def test_nothing_to_export_is_said():
    with pytest.raises(RunError, match="no row has a time"):
        export(make_run({"torch-dense": "wrong"}), "pyperf")


def test_formats_are_named():
    assert "pyperf" in formats()
    with pytest.raises(UsageError, match="did you mean 'pyperf'"):
        export(make_run({}), "pypref")
