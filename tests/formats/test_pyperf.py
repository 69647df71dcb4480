"""What we write as pyperf's JSON, pyperf itself reads back."""

import subprocess
import sys

import pyperf
import pytest

from sparsebench.errors import RunError, UsageError
from sparsebench.formats import export, formats


def test_pyperf_reads_it(small_run):
    text = export(small_run({"torch-dense": "ok", "cython": "ok", "cpp": "wrong", "scipy": "skipped"}), "pyperf")
    suite = pyperf.BenchmarkSuite.loads(text)
    assert suite.get_benchmark_names() == [
        "linear[pass=forward,sparsity=0.9] torch-dense", "linear[pass=forward,sparsity=0.9] cython",
    ]  # fmt: skip
    bench = suite.get_benchmark("linear[pass=forward,sparsity=0.9] cython")
    assert [run.values for run in bench.get_runs()] == [(0.001, 0.002, 0.003), (0.001, 0.003)]
    assert bench.get_loops() == 7
    assert bench.get_dates()[0].year == 2026


def test_pyperfs_commands_read_it(tmp_path, small_run):
    files = [tmp_path / "base.json", tmp_path / "head.json"]
    for file, factor in zip(files, (1.0, 3.0), strict=True):
        file.write_text(export(small_run({"torch-dense": "ok", "cython": "ok"}, factor), "pyperf"))

    def pyperf_says(command, *paths):
        told = subprocess.run(
            [sys.executable, "-m", "pyperf", command, *map(str, paths)], capture_output=True, text=True
        )
        assert told.returncode == 0, told.stderr
        return told.stdout

    assert "Number of run with values: 2" in pyperf_says("stats", files[0])
    assert "cython" in pyperf_says("hist", files[0])
    compared = pyperf_says("compare_to", *files)
    assert "3.00x slower" in compared
    assert "torch-dense" in compared


@pytest.mark.parametrize("name", formats())
def test_nothing_to_export_is_said(name, small_run):
    with pytest.raises(RunError, match="no row has a time"):
        export(small_run({"torch-dense": "wrong"}), name)


def test_formats_are_named(small_run):
    assert formats() == ["github-action", "pyperf", "pytest-benchmark"]
    with pytest.raises(UsageError, match="did you mean 'pyperf'"):
        export(small_run({}), "pypref")
