"""Shards become the run that was never divided; what does not fit is refused by name, what is missing is counted."""

import msgspec
import pytest

from sparsebench.plugin import PluginInfo
from sparsebench.runs.merge import MergeError, merge
from sparsebench.runs.store import RunWriter, read_run
from sparsebench.runs.summary import summarize

replace = msgspec.structs.replace
SPARSITIES = (0.7, 0.8, 0.9, 0.95)
SUITE = {"name": "suite-cpu", "sha256": "aa", "text": '[[kernel]]\nname = "linear-1024"\n'}


def options(index, count, **more):
    return {"selection": {"backends": [], "seed": 1, "shard": [index, count]}, "files": [], **more}


@pytest.fixture
def whole(run_of, cells_of):
    return run_of(cells_of(sparsities=SPARSITIES), suite=SUITE, options=options(1, 1))


@pytest.fixture
def shards(tmp_path, whole):
    """Stores shard `index` of `count` of the whole run; `info` changes its head, `cells` which ones it has."""

    def store(index, count=2, cells=None, folder=None, **info):
        mine = whole.info.cells[index - 1 :: count] if cells is None else cells
        axes = [cell.cell for cell in mine]
        head = {"id": f"s{index}", "cells": mine, "options": options(index, count), "code": "c"} | info
        place = tmp_path / (folder or f"shard{index}")
        with RunWriter.create(place, replace(whole.info, **head)) as writer:
            writer.append([s for s in whole.samples if s.cell in axes])
        return place

    return store


def rows_of(run):
    return [replace(row, notes=()) for row in summarize(run).rows]


def is_whole(merged, whole):
    """The proof: the merged run's rows, winners and samples are those of the run that was never divided."""
    return rows_of(merged) == rows_of(whole) and summarize(merged).contests == summarize(whole).contests


def test_shards_are_the_run_that_was_never_divided(shards, whole, tmp_path):
    merged, notes = merge([shards(2), shards(1)], tmp_path / "out")
    assert notes == []
    assert is_whole(merged, whole)
    assert sorted(map(msgspec.json.encode, merged.samples)) == sorted(map(msgspec.json.encode, whole.samples))
    assert merged.info.options["shards"] == {"merged": ["s1", "s2"], "missing": [], "of": 2}
    assert merged.info.options["selection"]["shard"] == [1, 1]
    assert read_run(tmp_path / "out") == merged


def test_twin_a_shard_with_a_lost_sample_is_not_the_whole(shards, whole, tmp_path):
    folder = shards(2)
    lines = (folder / "samples.jsonl").read_text().splitlines(keepends=True)
    (folder / "samples.jsonl").write_text("".join(lines[:-1]))
    assert not is_whole(merge([shards(1), folder], tmp_path / "out")[0], whole)


def test_a_missing_shard_is_said_and_counted(shards, tmp_path):
    merged, notes = merge([shards(3, 4), shards(1, 4)], tmp_path / "out")
    assert notes == ["2 of 4 shards are missing, and so are their cells: 2/4, 4/4"]
    assert merged.info.options["shards"]["missing"] == [2, 4]
    assert "2 of 4 shards are missing: 2/4, 4/4" in summarize(merged).problems


def test_a_torn_shard_is_used_and_said(shards, tmp_path):
    folder = shards(1)
    file = folder / "samples.jsonl"
    file.write_bytes(file.read_bytes()[:-9])
    _, notes = merge([folder, shards(2)], tmp_path / "out")
    assert len(notes) == 1
    assert "torn" in notes[0]


@pytest.mark.parametrize(
    ("field", "changes", "words"),
    [
        ("suite", {"suite": SUITE | {"sha256": "bb"}}, "sha256: aa / bb"),
        ("code", {"code": "d"}, "code differs in hash: c / d"),
        ("plugins", {"plugins": [PluginInfo(name="p", sha256="1")]}, "plugins differs in p"),
        ("libraries", {"libraries": {"torch": "1"}}, "torch: None / 1"),
        ("selection", {"options": options(2, 2) | {"files": ["x.py"]}}, "files: [] / ['x.py']"),
        ("shard count", {"options": options(2, 3)}, "of: 2 / 3"),
        ("cpu", {"host": {"fingerprint": {"cpu": "Xeon"}}}, "cpu: AMD EPYC 7713 / Xeon"),
        ("environment", {"environment": {"1 threads": "b"}}, "workers of 1 threads"),
        ("shard", {"options": options(1, 2)}, "are both shard 1/2"),
        ("shard", {"options": {}}, "does not say which shard"),
        ("shard", {"options": options(1, 1)}, "a whole run, not a shard"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_does_not_fit_is_refused_by_name(shards, tmp_path, field, changes, words):
    one, two = shards(1, environment={"1 threads": "a"}), shards(2, **{"environment": {"1 threads": "a"}} | changes)
    with pytest.raises(MergeError) as refused:
        merge([one, two], tmp_path / "out")
    assert refused.value.field == field
    assert words in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_overlapping_cells_are_refused_by_name(shards, whole, tmp_path):
    both = [shards(1), shards(2, cells=whole.info.cells[:2])]
    with pytest.raises(MergeError, match=r"both have linear-1024\[pass=forward,sparsity=0.7,threads=1\]") as refused:
        merge(both, tmp_path / "out")
    assert refused.value.field == "cell"


def test_one_run_alone_is_nothing_to_merge(shards, tmp_path):
    with pytest.raises(MergeError, match="give all shards"):
        merge([shards(1)], tmp_path / "out")


def test_cells_are_in_the_order_of_a_run(shards, run_of, cells_of, whole, tmp_path):
    """By kind, then as the suite's text names the cases, whichever shard had them."""
    text = "".join(f'[[{kind}]]\nname = "{name}"\n' for kind, name in
                   (("training", "t"), ("kernel", "b"), ("kernel", "a"), ("kernel", "c")))  # fmt: skip
    kinds = {"t": "training"}
    cells = [replace(cell, kind=kinds.get(cell.case, "kernel"))
             for cell in cells_of(sparsities=(0.9,), cases=("a", "b", "c", "t"))]  # fmt: skip
    suite = SUITE | {"text": text}
    folders = [shards(i + 1, cells=cells[i::2], suite=suite) for i in (0, 1)]
    merged, _ = merge(folders, tmp_path / "out")
    assert [cell.case for cell in merged.info.cells] == ["b", "a", "c", "t"]
