"""A run folder survives kills, torn lines and second writers, and says what it could not read."""

import json
import math
import os
import subprocess
import sys
import time
import tracemalloc

import msgspec
import pytest

from sparsebench.errors import RunError
from sparsebench.runs import sides
from sparsebench.runs.records import Sample
from sparsebench.runs.sides import digest, digests_of
from sparsebench.runs.store import RunWriter, finite, read_run, read_timings


def test_what_is_written_is_read(stored):
    folder, run = stored
    got = read_run(folder)
    assert got.info == run.info
    assert got.samples == run.samples
    assert got.problems == ()
    assert read_run(folder / "run.json").samples == read_run(folder / "samples.jsonl").samples == run.samples


def test_run_json_is_for_people_too(stored):
    text = (stored[0] / "run.json").read_text()
    assert text.count("\n") > 20
    assert json.loads(text)["schema"] == 1
    assert [p.name for p in stored[0].iterdir() if p.name.startswith(".")] == []


def test_large_runs_are_read_in_processes_and_nothing_else_differs(stored, monkeypatch):
    folders = [stored[0], stored[0]]
    here = digests_of(folders)
    monkeypatch.setattr(sides, "LARGE", 0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    read_here = []
    monkeypatch.setattr(sides, "read_timings", lambda folder: read_here.append(folder) or read_timings(folder))
    assert digests_of(folders) == here
    assert len(read_here) == 1, "a child was to read the other"


def test_a_large_run_is_compared_in_little_memory(tmp_path, run_of, cells_of):
    """150,000 samples, which 10,000 cells may have, take 135 MB while they are read and 30 MB of a comparison."""
    cells = cells_of(sparsities=tuple(i / 1000 for i in range(500)))
    run = run_of(cells)
    with RunWriter.create(tmp_path / "run", run.info) as writer:
        writer.append(run.samples)
    tracemalloc.start()
    try:
        got = read_timings(tmp_path / "run")
        condensed = digest(got)
        held, _ = tracemalloc.get_traced_memory()
        count = len(got.samples)
        del got
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 7500
    assert held / count < 1000  # bytes; 900 here, 1,240 where every line keeps a cell and strings of its own
    assert left / count < 400  # what a comparison keeps of a run: 200 here
    assert len(condensed.sides) == 500


def test_unknown_keys_are_ignored(stored):
    folder, run = stored
    for name in ("run.json", "samples.jsonl"):
        file = folder / name
        file.write_text(file.read_text().replace("{", '{"not_yet_invented": [1],', 1))
    assert read_run(folder).samples == run.samples


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: (f / "run.json").write_text('{"schema": 99}'), "update sparsebench"),
        (lambda f: (f / "run.json").unlink(), "no run.json"),
        (lambda f: (f / "run.json").write_text("{"), "not the head of a run"),
        (lambda f: (f / "run.json").write_text('{"schema": 1}'), "not the head of a run"),
        (lambda f: [p.unlink() for p in f.iterdir()], "empty folder"),
        (lambda f: ([p.unlink() for p in f.iterdir()], f.rmdir()), "no such run"),
    ],
)
def test_a_folder_that_is_no_run_says_what_to_do(stored, spoil, said):
    spoil(stored[0])
    for read in (read_run, RunWriter.resume):
        with pytest.raises(RunError, match=said) as caught:
            read(stored[0])
        assert "\n" not in str(caught.value)


def test_resume_cuts_the_torn_line_and_changes_nothing_else(stored):
    folder, run = stored
    file = folder / "samples.jsonl"
    before = file.read_bytes()
    file.write_bytes(before + b'{"case": "linear-1024", "ce')
    with RunWriter.resume(folder) as writer:
        assert "torn" in writer.problems[0]
        assert writer.run.samples == run.samples
        assert writer.session == 1
        assert file.read_bytes() == before
        writer.append([msgspec.structs.replace(run.samples[0], block=7, session=writer.session)])
    assert file.read_bytes().startswith(before)
    got = read_run(folder)
    assert len(got.samples) == len(run.samples) + 1
    assert got.problems == ()
    with RunWriter.resume(folder) as writer:
        assert writer.session == 2


def test_create_does_not_write_over_a_run(stored):
    before = (stored[0] / "samples.jsonl").read_bytes()
    with pytest.raises(RunError, match="holds a run already"):
        RunWriter.create(stored[0], stored[1].info)
    assert (stored[0] / "samples.jsonl").read_bytes() == before
    RunWriter.resume(stored[0]).close()  # the refused writer holds no lock


def test_a_second_writer_is_refused_and_told_who_writes(stored):
    with RunWriter.resume(stored[0]) as writer:
        with pytest.raises(RunError, match=f"process {os.getpid()} is writing"):
            RunWriter.resume(stored[0])
        writer.close()
    RunWriter.resume(stored[0]).close()


def test_a_killed_writer_leaves_no_lock_and_no_half_line(stored):
    folder, run = stored
    code = (
        "import sys; from sparsebench.runs.store import RunWriter\n"
        "w = RunWriter.resume(sys.argv[1]); s = w.run.samples[0]; n = 100\n"
        "import msgspec\n"
        "while True:\n"
        "    w.append([msgspec.structs.replace(s, block=n)]); n += 1; print(n, flush=True)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE)
    child.stdout.readline()
    with pytest.raises(RunError, match=f"process {child.pid} is writing"):
        RunWriter.resume(folder)
    child.kill()
    told = child.communicate()[0].splitlines()
    with RunWriter.resume(folder) as writer:
        assert len(writer.run.samples) >= len(run.samples) + 1 + len(told)  # all that was said to be written is there


def test_a_full_disk_leaves_whole_lines(stored, monkeypatch):
    folder, run = stored
    before = (folder / "samples.jsonl").read_bytes()
    with RunWriter.resume(folder) as writer:
        real = os.write
        monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[: len(data) // 2]))
        with pytest.raises(RunError, match="--resume"):
            writer.append([msgspec.structs.replace(run.samples[0], block=9)])
        monkeypatch.undo()
    assert (folder / "samples.jsonl").read_bytes() == before


def test_numbers_that_json_cannot_hold_are_told_in_the_note():
    sample = Sample(
        case="c", cell={}, variant="v", block=0, status="wrong", note="odd",
        verify={"max_rel_err": math.inf, "tolerance": 1e-6}, metrics={"loss": math.nan},
    )  # fmt: skip
    kept = finite(sample)
    assert kept.verify == {"tolerance": 1e-6}
    assert kept.metrics == {}
    assert kept.note == "odd; loss is nan; max_rel_err is inf"
    assert finite(kept) is kept
    naive = msgspec.json.encode(sample)  # null where a number must be: the line could not be read again
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(naive, type=Sample)


def test_a_wrong_row_with_infinite_error_is_read_back(stored):
    folder, run = stored
    bad = msgspec.structs.replace(run.samples[0], block=8, status="wrong", verify={"max_rel_err": math.inf}, t_ns=[])
    with RunWriter.resume(folder) as writer:
        writer.append([bad])
    assert read_run(folder).problems == ()
    assert read_run(folder).samples[-1].status == "wrong"


def test_ten_thousand_lines_are_read_within_a_second(stored):
    folder, run = stored
    with RunWriter.resume(folder) as writer:
        writer.append([msgspec.structs.replace(run.samples[0], block=10 + n) for n in range(10_000)])
    seconds = []
    for _ in range(3):  # the best of three: the machine is shared
        began = time.perf_counter()
        got = read_run(folder)
        seconds.append(time.perf_counter() - began)
    assert min(seconds) < 1
    assert len(got.samples) == len(run.samples) + 10_000
