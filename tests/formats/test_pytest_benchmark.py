"""What we write pytest-benchmark's own command reads; what it wrote is compared and not judged."""

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pytest_benchmark.stats import Stats

from sparsebench.errors import RunError
from sparsebench.formats import export
from sparsebench.formats.pytest_benchmark import compare, is_file, statistics_of

COMMAND = [sys.executable, "-m", "pytest_benchmark"]


@pytest.fixture
def files(tmp_path, small_run):
    """Two runs as its files: in the second what is not the baseline takes three times as long."""
    paths = [tmp_path / "base.json", tmp_path / "head.json"]
    for path, factor in zip(paths, (1.0, 3.0), strict=True):
        statuses = {"torch-dense": "ok", "cython": "ok", "cpp": "wrong"}
        path.write_text(export(small_run(statuses, factor), "pytest-benchmark"))
    return paths


def test_its_command_compares_what_we_write(files, tmp_path):
    told = subprocess.run(
        [*COMMAND, "--storage", str(tmp_path), "compare", *map(str, files), "--columns", "median,rounds,iterations"],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    lines = [line.split() for line in told.stdout.splitlines() if "cython" in line]
    assert len(lines) == 2, told.stdout
    assert {line[-2] for line in lines} == {"5"}
    assert {line[-1] for line in lines} == {"7"}
    assert "(3.00)" in told.stdout
    assert "cpp" not in told.stdout


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 7, 8, 13, 100])
def test_statistics_are_its_own(count):
    draw = random.Random(count)
    data = [draw.lognormvariate(-7, 0.5) for _ in range(count)]
    theirs = Stats()
    for value in data:
        theirs.update(value)
    ours = statistics_of(data, 3)
    for name, value in theirs.as_dict().items():
        assert ours[name] == (pytest.approx(value, rel=1e-9, abs=1e-18) if isinstance(value, float) else value), name
    assert ours["data"] == data


def test_twin_other_quartiles_are_seen(monkeypatch):
    monkeypatch.setattr("sparsebench.formats.pytest_benchmark._quartiles", lambda ordered: (ordered[0], ordered[-1]))
    with pytest.raises(AssertionError):
        test_statistics_are_its_own(7)


def test_two_of_its_files_are_shown_and_never_judged(files):
    comparison = compare(*files)
    assert {row.verdict for row in comparison.rows} == {"not judged"}
    changes = {row.variant.split()[-1]: row.change for row in comparison.rows}
    assert changes == {"torch-dense": 1.0, "cython": pytest.approx(3.0)}
    assert comparison.exit_code() == 0
    assert "no time is judged" in comparison.notes[0]
    assert not comparison.anchored


def changed(file: Path, change) -> Path:
    told = json.loads(file.read_text())
    change(told)
    other = file.with_name(f"changed-{file.name}")
    other.write_text(json.dumps(told))
    return other


def test_what_is_gone_is_missing_and_what_came_is_new(files):
    fewer = changed(files[1], lambda told: told["benchmarks"].pop())
    comparison = compare(files[0], fewer)
    assert [row.verdict for row in comparison.rows] == ["not judged", "missing"]
    assert comparison.exit_code() == 1
    assert [row.verdict for row in compare(fewer, files[0]).rows] == ["not judged", "new"]
    nothing = changed(files[1], lambda told: told["benchmarks"].clear())
    assert compare(files[0], nothing).notes[-1] == "the two files have no benchmark in common"


def test_another_machine_a_double_and_a_clock_that_stood_still_are_said(files):
    def change(told):
        told["machine_info"]["cpu"]["brand_raw"] = "Xeon"
        told["benchmarks"].append(told["benchmarks"][0])
        told["benchmarks"][1]["stats"]["median"] = 0.0

    comparison = compare(files[0], changed(files[1], change))
    assert any("Xeon" in note for note in comparison.notes)
    assert "head: 1 benchmarks are there twice; the last stands" in comparison.notes
    assert comparison.rows[1].change is None
    assert "a clock went backwards" in comparison.rows[1].reason


@pytest.mark.parametrize(
    ("cpu", "said"), [("x", "cpu: x / y"), (["x"], "cpu: ['x'] / y"), (None, "cpu: not given / y")]
)
def test_a_processor_that_is_no_table_is_text(files, cpu, said):
    old, new = (
        changed(file, lambda told, cpu=cpu: told["machine_info"].update(cpu=cpu))
        for file, cpu in zip(files, (cpu, "y"), strict=True)
    )
    assert f"hosts differ in {said}" in compare(old, new).notes


def test_a_file_nested_without_end_is_said(tmp_path, files):
    (tmp_path / "deep.json").write_text('{"more": ' + "[" * 5000 + "]" * 5000 + "}")
    with pytest.raises(RunError, match=r"deep\.json: not a whole file of pytest-benchmark"):
        compare(files[0], tmp_path / "deep.json")


@pytest.mark.parametrize("text", ["", '{"benchmarks": [{"name": "x", "st', "[]", '{"version": "1"}', "\xff"])
def test_a_file_that_is_not_whole_is_said(tmp_path, files, text):
    (tmp_path / "torn.json").write_text(text)
    with pytest.raises(RunError, match=r"torn\.json: not a whole file of pytest-benchmark"):
        compare(files[0], tmp_path / "torn.json")
    with pytest.raises(RunError, match="cannot be read"):
        compare(files[0], tmp_path / "nowhere.json")


def test_the_head_of_a_run_is_not_taken_for_one(tmp_path, files):
    shutil.copy(files[0], tmp_path / "run.json")
    assert [is_file(path) for path in (files[0], tmp_path / "run.json", tmp_path)] == [True, False, False]
