"""A head that is no text, nested without end or of another shape is refused by name; of lines such ones are skipped."""

import json

import pytest

from sparsebench.errors import RunError
from sparsebench.runs.store import RunWriter, read_run, read_timings

DEEP = b"[" * 5000 + b"]" * 5000


@pytest.fixture
def stored(tmp_path, run_of):
    """(folder of a run on disk, its head as a table)."""
    run = run_of(rounds=2)
    with RunWriter.create(tmp_path / "run", run.info) as writer:
        writer.append(run.samples)
    return tmp_path / "run", json.loads((tmp_path / "run" / "run.json").read_text())


def test_a_head_that_nothing_is_wrong_with_is_read(stored):
    folder, told = stored
    assert read_run(folder).info.id == told["id"]
    ceilings = [{"threads": 1, "isa": "avx2", "gflops": 9, "levels": [{"name": "memory", "capacity": 0, "gb_s": 2}]}]
    told["host"] |= {"ceilings": ceilings, "volatile": {"load": 1}, "not_yet_invented": None}
    told["options"] |= {"shards": {"merged": ["a"], "missing": [2], "of": 3}, "selection": {"shard": [1, 1]}}
    told["cells"][0]["cell"] |= {"speedup": 2, "seed": None, "sparsity": True}
    (folder / "run.json").write_text(json.dumps(told))
    assert read_run(folder).info.host == told["host"]


@pytest.mark.parametrize(
    ("key", "value"),
    [("id", b'"\xff"'), ("more", DEEP), ("host", b'{"fingerprint": ' + DEEP + b"}")],
    ids=["no text", "deep where nobody looks", "deep"],
)
def test_a_head_that_no_decoder_takes_is_said(stored, key, value):
    folder, told = stored
    (folder / "run.json").write_bytes(json.dumps(told | {key: "HERE"}).encode().replace(b'"HERE"', value))
    for read in (read_run, read_timings, RunWriter.resume):
        with pytest.raises(RunError, match=r"run\.json: not the head of a run \(.*; restore it or run again"):
            read(folder)


def test_a_deep_line_is_corrupt_and_the_others_are_read(stored):
    folder, _ = stored
    lines = (folder / "samples.jsonl").read_bytes().splitlines(keepends=True)
    first = json.loads(lines[0]) | {"cell": "HERE"}
    lines[0] = json.dumps(first).encode().replace(b'"HERE"', b'{"sparsity": ' + DEEP + b"}") + b"\n"
    (folder / "samples.jsonl").write_bytes(b"".join(lines))
    run = read_run(folder)
    assert len(run.samples) == len(lines) - 1
    assert len(run.problems) == 1
    assert run.problems[0].startswith("samples.jsonl line 1: corrupt, skipped (maximum recursion depth")


@pytest.mark.parametrize(
    ("where", "odd", "said"),
    [
        ("host", {}, "fingerprint"),
        ("host.fingerprint", None, "host.fingerprint"),
        ("host.fingerprint", ["EPYC"], "host.fingerprint"),
        ("host.volatile", None, "host.volatile"),
        ("host.ceilings", None, "host.ceilings"),
        ("host.ceilings", [{}], "host.ceilings"),
        ("host.ceilings", [{"threads": 1, "isa": "", "gflops": 1, "levels": []}], "levels"),
        ("suite", {}, "name"),
        ("suite.text", 3, "suite.text"),
        ("options.shards", None, "options.shards"),
        ("options.shards", {"missing": 3}, "options.shards.missing"),
        ("options.shards", {"merged": 3}, "options.shards.merged"),
        ("options.selection", None, "options.selection"),
        ("options.ab", None, "options.ab"),
        ("cells.0.cell.threads", "two", "cell.threads"),
        ("cells.0.cell.sparsity", "much", "cell.sparsity"),
        ("cells.0.cell.speedup", [], "cell.speedup"),
        ("cells.0.margin", -1, "margin"),
        ("cells.1.cell", {"sparsity": 0.8, "pass": "forward", "threads": 1}, "is in it twice"),
    ],
)
def test_a_head_of_another_shape_says_where(stored, where, odd, said):
    folder, told = stored
    *way, last = (int(part) if part.isdigit() else part for part in where.split("."))
    table = told
    for part in way:
        table = table[part]
    table[last] = odd
    (folder / "run.json").write_text(json.dumps(told))
    with pytest.raises(RunError, match=r"run\.json: not the head of a run \(.*; restore it or run again") as caught:
        read_run(folder)
    assert said in str(caught.value)
