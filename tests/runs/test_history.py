"""A case over stored runs: those of one machine and version alone, in order, with the step where it was made."""

import errno
import math
import os
import shutil

import msgspec
import pytest

from sparsebench.errors import RunError, UsageError
from sparsebench.report._history import history_text
from sparsebench.runs.blocks import block_ns
from sparsebench.runs.history import history_of
from sparsebench.runs.stats import median
from sparsebench.runs.steps import steps
from sparsebench.runs.store import RunWriter, read_timings

BASE = {"torch-dense": 2e6, "torch-csr": 4e6, "cython": 1e6}
replace = msgspec.structs.replace


@pytest.fixture
def store(tmp_path, run_of, cells_of):
    """Stores run number `day`, in which `cython` takes `factor` times as long."""

    def write(day, factor=1.0, cells=None, **info):
        cells = cells_of(sparsities=(0.9,)) if cells is None else cells
        head = {"id": f"id{day}", "started": f"2026-01-{day:02}T00:00:00+00:00", "git": {"commit": f"c{day:07}ff"}}
        run = run_of(
            cells, BASE | {"cython": 1e6 * factor}, seed=day, rounds=4, host_speed=1 if day < 7 else 2, **head | info
        )
        with RunWriter.create(tmp_path / "results" / f"run-{day:02}", run.info) as writer:
            writer.append(run.samples)
        return tmp_path / "results"

    return write


def test_a_slowdown_is_found_with_its_commit(store):
    for day in range(1, 13):
        folder = store(day, 1.12 if day >= 8 else 1.0)
    history = history_of(folder, "linear-1024")
    assert [run.id for run in history.runs] == [f"id{day}" for day in range(1, 13)]
    [(series, shift)] = history.shifted()
    assert (series.variant, history.runs[shift.since].commit) == ("cython", "c0000008ff")
    assert shift.change == pytest.approx(1.12, abs=0.03)
    assert shift.p <= 0.05
    text = history_text(history)
    assert "cython: slower, +1" in text
    assert "since run id8, commit c0000008 (p = " in text
    assert max(map(len, text.splitlines())) <= 100
    assert "1 steps in 2 series" in text


def test_absolute_times_would_have_stepped_everywhere(store):
    """From the seventh run on the machine is twice as slow: anchored ratios do not see it."""
    for day in range(1, 13):
        folder = store(day)
    runs = [read_timings(path) for path in sorted(folder.iterdir())]
    for variant in BASE:
        times = [median(ns for s in run.samples if s.variant == variant and (ns := block_ns(s))) for run in runs]
        assert steps(list(map(math.log, times)), math.log1p(0.03)) != [], variant
    history = history_of(folder, "linear-1024")
    assert [len(series.points) for series in history.series] == [12, 12]
    assert history.shifted() == []


def test_other_machines_versions_and_cases_are_counted_and_named(store, cells_of):
    store(1, host={"fingerprint": {"cpu": "Xeon"}})
    store(2, cells=[replace(c, version="v0") for c in cells_of(sparsities=(0.9,))])
    store(3, cells=cells_of(cases=("other",)))
    folder = store(4)
    (folder / "broken").mkdir()
    (folder / "broken" / "run.json").write_text('{"schema": 99}')
    (folder / "torn").mkdir()
    (folder / "torn" / "run.json").write_text('{"schema": 1, "id"')
    history = history_of(folder, "linear-1024")
    assert [run.id for run in history.runs] == ["id2", "id4"]
    assert [len(series.points) for series in history.series] == [1, 1]
    notes = "\n".join(history.notes)
    assert "1 of 4 runs do not have the case" in notes
    assert "1 of 3 runs are of another machine or other libraries, left out: id1 (cpu: Xeon / AMD EPYC 7713" in notes
    assert "1 cells of run id2 are of another version of the case" in notes
    assert "schema 99 is newer than 1" in notes
    assert "not the head of a run" in notes


def test_a_run_whose_times_cannot_be_read_is_noted_and_the_others_are_used(store, monkeypatch):
    """Permissions do not stop the user root, so what they would do is made up."""
    for day in range(1, 5):
        folder = store(day)
    locked = {"run-02", "run-04"}  # one of them the newest

    def read(path):
        if path.name in locked:
            raise RunError(f"{path}/samples.jsonl: cannot be read (Permission denied); check its permissions")
        return read_timings(path)

    monkeypatch.setattr("sparsebench.runs.history.read_timings", read)
    history = history_of(folder, "linear-1024")
    assert [run.id for run in history.runs] == ["id1", "id3"]
    assert [[point.run for point in series.points] for series in history.series] == [[0, 1], [0, 1]]
    assert [note.partition(": ")[0] for note in history.notes] == ["left out", "left out"]
    assert "run-04/samples.jsonl: cannot be read" in history.notes[0]
    assert "run-02/samples.jsonl: cannot be read" in history.notes[1]
    locked |= {"run-01", "run-03"}
    with pytest.raises(RunError, match=r"no run with linear-1024 can be read: left out: .*Permission denied"):
        history_of(folder, "linear-1024")


def test_samples_and_heads_that_are_folders_are_noted(store):
    store(1)
    folder = store(2)
    (folder / "run-01" / "samples.jsonl").unlink()
    (folder / "run-01" / "samples.jsonl").mkdir()
    (folder / "odd" / "run.json").mkdir(parents=True)
    history = history_of(folder, "linear-1024")
    assert [run.id for run in history.runs] == ["id2"]
    assert len(history.notes) == 2
    assert "odd/run.json: cannot be read (Is a directory)" in history.notes[0]
    assert "run-01/samples.jsonl: cannot be read (Is a directory)" in history.notes[1]


def test_a_folder_that_may_not_be_entered_is_noted(store, monkeypatch):
    store(1)
    folder = store(2)
    scandir = os.scandir

    def scan(path):
        if str(path).endswith("run-01"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan)
    history = history_of(folder, "linear-1024")
    assert [run.id for run in history.runs] == ["id2"]
    assert history.notes == (f"left out: {folder}/run-01: cannot be read (Permission denied); check its permissions",)


def test_runs_of_ab_are_no_points_and_never_the_newest(store, cells_of):
    for day in range(1, 4):
        store(day)
    cells = [replace(c, baseline="cython", variants=["cython", "torch-csr"]) for c in cells_of(sparsities=(0.9,))]
    folder = store(4, cells=cells, options={"ab": ["cython", "torch-csr"]})
    history = history_of(folder, "linear-1024")
    assert [run.id for run in history.runs] == ["id1", "id2", "id3"]
    assert history.baseline == "torch-dense"
    assert history.notes == ("runs of `ab`, left out: id4",)
    with pytest.raises(RunError, match="no run below it can be used: runs of `ab`, left out: id4"):
        history_of(folder / "run-04", "linear-1024")


def test_a_run_that_does_not_say_when_it_was_is_named(store):
    store(1, started="yesterday")
    history = history_of(store(2), "linear-1024")
    assert [run.id for run in history.runs] == ["id2"]
    assert history.notes == ("1 runs do not say when they began and are left out: id1",)


def test_a_failure_is_in_the_table_and_not_in_the_series(store, run_of):
    store(1)
    folder = store(2, change=lambda s: replace(s, status="crash", t_ns=[]) if s.variant == "cython" else s)
    history = history_of(folder, "linear-1024", "cython")
    assert [point.status for point in history.series[0].points] == ["ok", "crash"]
    assert "crash" in history_text(history)


def test_what_is_not_there_is_said(store, tmp_path):
    folder = store(1)
    with pytest.raises(UsageError, match=r"none of the 1 runs .* did you mean 'linear-1024'"):
        history_of(folder, "linear-1042")
    with pytest.raises(UsageError, match=r"--variant cytohn: .* did you mean 'cython'"):
        history_of(folder, "linear-1024", "cytohn")
    with pytest.raises(RunError, match="no such folder"):
        history_of(tmp_path / "nothing", "linear-1024")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match="no run below it can be read"):
        history_of(tmp_path / "empty", "linear-1024")


def test_a_run_counts_once_beside_its_shards_and_its_copies(store, tmp_path):
    store(1)
    store(2, options={"shards": {"merged": ["id3", "id4"], "missing": [], "of": 2}})
    store(3)
    store(4)
    folder = store(5)
    shutil.copytree(folder / "run-05", folder / "copy")
    history = history_of(folder, "linear-1024")
    assert [run.id for run in history.runs] == ["id1", "id2", "id5"]
    assert "shards of a run that is there merged, left out: id3, id4" in history.notes
    assert "1 copies of runs, left out" in history.notes


def test_what_the_newest_run_did_not_measure_is_counted_and_named(store, cells_of):
    store(1, cells=cells_of(sparsities=(0.9, 0.95)))
    history = history_of(store(2), "linear-1024")
    [note] = history.notes
    assert note.startswith(
        "2 series of older runs that the newest one did not measure, left out: cython in linear-1024["
    )
    assert "sparsity=0.95" in note
