"""A case over stored runs: those of one machine and version alone, in order, with the step where it was made."""

import msgspec
import pytest

from sparsebench.errors import RunError, UsageError
from sparsebench.report._history import history_text
from sparsebench.runs.history import history_of
from sparsebench.runs.store import RunWriter

BASE = {"torch-dense": 2e6, "torch-csr": 4e6, "cython": 1e6}
replace = msgspec.structs.replace


@pytest.fixture
def store(tmp_path, run_of, cells_of):
    """Stores run number `day`, in which `cython` takes `factor` times as long."""

    def write(day, factor=1.0, cells=None, **info):
        cells = cells_of(sparsities=(0.9,)) if cells is None else cells
        head = {"id": f"id{day}", "started": f"2026-01-{day:02}T00:00:00+00:00", "git": {"commit": f"c{day:07}ff"}}
        run = run_of(cells, BASE | {"cython": 1e6 * factor}, seed=day, rounds=4, host_speed=1 + day % 3, **head | info)
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
    """The runs are on a machine that is two and three times as slow from day to day: anchored ratios do not see it."""
    for day in range(1, 13):
        folder = store(day)
    assert history_of(folder, "linear-1024").shifted() == []


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
    assert "1 of 3 runs are of another machine, left out: id1 (cpu: Xeon / AMD EPYC 7713" in notes
    assert "1 cells of run id2 are of another version of the case" in notes
    assert "schema 99 is newer than 1" in notes
    assert "not the head of a run" in notes


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
