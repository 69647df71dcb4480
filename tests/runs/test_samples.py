"""Lines of samples: what is torn, corrupt, double or without a time is said, and the rest is read and sorted."""

import json

import msgspec
import pytest

from sparsebench.runs.blocks import by_row, kept
from sparsebench.runs.records import Timing, cell_key
from sparsebench.runs.sides import digest
from sparsebench.runs.store import RunWriter, read_run, read_timings

replace = msgspec.structs.replace


def test_a_clock_that_went_backwards_is_said_and_the_rest_counts(stored):
    folder, run = stored
    file = folder / "samples.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    odd = json.loads(lines[1])
    odd["t_ns"][2], odd["t_ns"][5] = -3.0, 0
    file.write_text("".join([lines[0], json.dumps(odd) + "\n", *lines[2:]]))
    got = read_run(folder)
    assert len(got.samples) == len(run.samples)
    assert got.problems == (
        "samples.jsonl: a clock went backwards or stood still: rounds without a time, left out: 2 of torch-csr",
    )
    assert len(kept(got.samples[1])) == 10


def test_samples_of_a_cell_share_it_and_numbers_stay_what_they_are(tmp_path, run_of, cells_of):
    axes = [{"sparsity": 1, "block": [1, 2]}, {"sparsity": 1.0}, {"sparsity": 1}, {"sparsity": True}]
    cells = [replace(cells_of(sparsities=(0.9,))[0], cell=cell) for cell in axes]
    run = run_of(cells, rounds=2)
    with RunWriter.create(tmp_path / "run", run.info) as writer:
        writer.append(run.samples)
    got = read_run(tmp_path / "run").samples
    assert [repr(sample.cell) for sample in got] == [repr(sample.cell) for sample in run.samples]
    same = [sample for sample in got if repr(sample.cell) == "{'sparsity': 1}"]
    assert len(same) == 15
    assert len({id(sample.cell) for sample in same}) == 1


def test_rows_are_the_same_read_and_made_of_samples(stored):
    """The reader sorts by the text of a cell; whoever has samples alone, by its key."""
    folder, run = stored
    turned = replace(run.samples[0], cell=dict(reversed(run.samples[0].cell.items())), block=7)
    others = [replace(turned, cell={**turned.cell, "threads": threads}) for threads in (1.0, True)]
    clock = replace(turned, block=8, t_ns=[-1.0, 2.0], session=1)
    with (folder / "samples.jsonl").open("ab") as file:
        for line in (turned, run.samples[0], *others, clock):
            file.write(msgspec.json.encode(line) + b"\n{\n")
    got = read_run(folder)
    made = by_row(got.samples)
    assert {key: list(blocks) for key, blocks in got.rows.items()} == {k: list(blocks) for k, blocks in made.items()}
    assert all(got.rows[key][block] is sample for key, blocks in made.items() for block, sample in blocks.items())
    key = cell_key(turned.case, run.samples[0].cell)
    assert [*got.rows[key, turned.variant]] == [0, 1, 2, 3, 4, 7, 8]
    assert len(got.rows) == len(run.rows) + 2
    assert got.rows[key, turned.variant][8].dropped == [0]


@pytest.mark.slow
def test_times_alone_are_those_of_the_whole_run(stored):
    folder, run = stored
    (folder / "samples.jsonl").open("a").write(msgspec.json.encode(run.samples[0]).decode() + "\nnot JSON\n")
    whole, times = read_run(folder), read_timings(folder)
    assert (times.info, times.problems, times.path) == (whole.info, whole.problems, folder)
    assert len(times.problems) == 2
    assert len(times.samples) == len(whole.samples) == len(run.samples)
    for name in Timing.__struct_fields__:
        assert [getattr(s, name) for s in times.samples] == [getattr(s, name) for s in whole.samples]
    assert digest(times).sides == digest(whole).sides


def test_samples_that_are_gone_are_said(stored):
    folder, _ = stored
    assert read_run(folder).problems == ()
    (folder / "samples.jsonl").unlink()
    for read in (read_run, read_timings):
        got = read(folder)
        assert (got.samples, got.rows) == ((), {})
        assert got.problems == ("samples.jsonl is not there: what was measured is gone, or nothing was",)


def test_torn_line_is_said_and_skipped(stored):
    folder, run = stored
    file = folder / "samples.jsonl"
    file.write_bytes(file.read_bytes()[:-20])
    got = read_run(folder)
    assert got.samples == run.samples[:-1]
    assert got.problems == (f"samples.jsonl line {len(run.samples)}: torn (no end of line), skipped",)


@pytest.mark.parametrize("junk", [b"{", b"\xff\xfe", b"\0" * 40, b"[]", b'{"case": 3}', b""])
def test_corrupt_line_is_said_and_the_rest_is_read(stored, junk):
    folder, run = stored
    file = folder / "samples.jsonl"
    lines = file.read_bytes().split(b"\n")
    lines[3] = junk
    file.write_bytes(b"\n".join(lines))
    got = read_run(folder)
    assert got.samples == run.samples[:3] + run.samples[4:]
    assert len(got.problems) == 1
    assert "line 4" in got.problems[0]


def test_of_two_lines_for_one_thing_the_first_stands(stored):
    folder, run = stored
    second = msgspec.structs.replace(run.samples[2], t_ns=[1.0])
    with RunWriter.resume(folder) as writer:
        writer.append([second])
    got = read_run(folder)
    assert got.samples == run.samples
    where = "linear-1024[pass=forward,sparsity=0.8,threads=1]"
    assert got.problems == (f"samples.jsonl line 31: block 0 of cython in {where} is there already; the first stands",)
