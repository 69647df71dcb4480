"""`history` and `merge` from the command line, and what `compare` takes and writes beside two runs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sparsebench.formats import export
from sparsebench.runs.records import CellInfo, RunInfo, Sample
from sparsebench.runs.store import RunWriter, read_run

Call = Callable[..., Any]
Store = Callable[..., Path]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Stores a run of two cells and ten blocks (or some of them) in which `mine` takes `factor` times as long."""

    def run(name: str, factor: float = 1.0, cells: slice = slice(None), mine: str = "mine", **changes: Any) -> Path:
        infos = [
            CellInfo(case=f"linear-{size}", kind="kernel", cell={"sparsity": 0.9}, version="1", title="linear 8->8",
                     blocks=10, tags=["noisy"] if size == 2 else [], variants=["torch-dense", mine],
                     baseline="torch-dense")
            for size in (1, 2)
        ][cells]  # fmt: skip
        head: dict[str, Any] = {
            "id": name, "argv": [], "started": "2026-01-01T00:00:00+00:00", "cells": infos,
            "suite": {"name": "tiny", "sha256": "1"}, "host": {"fingerprint": {"cpu": "one"}},
        }  # fmt: skip
        with RunWriter.create(tmp_path / name, RunInfo(**head | changes)) as writer:
            for block in range(10):
                for info in infos:
                    times = {"torch-dense": 1e6, mine: 5e6 * factor * (1 + 0.001 * (block % 3))}
                    writer.append(
                        [Sample(case=info.case, cell=info.cell, variant=variant, block=block, status="ok",
                                t_ns=[ns] * 4, loops=1) for variant, ns in times.items()]
                    )  # fmt: skip
        return tmp_path / name

    return run


def verdicts(told: str) -> dict[str, str]:
    return {row["case"]: row["verdict"] for row in json.loads(told)["rows"] if row["variant"] == "mine"}


def test_margins_of_a_tag_and_of_a_case(call: Call, store: Store) -> None:
    base, head = str(store("base")), str(store("head", 1.2))
    code, out, _ = call("compare", base, head, "--margin", "noisy=30%", "--format", "json")
    assert (code, verdicts(out)) == (1, {"linear-1": "slower", "linear-2": "same"})
    code, out, _ = call("compare", base, head, "--margin", "30%", "--margin", "linear-1=0.05", "--format", "json")
    assert (code, verdicts(out)) == (1, {"linear-1": "slower", "linear-2": "same"})
    code, _, err = call("compare", base, head, "--margin", "niosy=30%")
    assert (code, "did you mean 'noisy'" in err) == (2, True)
    assert call("compare", base, head, "--margin", "noisy=lots").code == 2


def test_a_renamed_variant(call: Call, store: Store) -> None:
    base, head = str(store("base", mine="old")), str(store("head", 1.2))
    code, out, _ = call("compare", base, head)
    assert (code, "add --rename old=mine" in " ".join(out.split())) == (1, True)
    code, out, _ = call("compare", base, head, "--rename", "old=mine", "--format", "json")
    assert verdicts(out) == {"linear-1": "slower", "linear-2": "slower"}
    assert "did you mean 'old'" in call("compare", base, head, "--rename", "odl=mine").err
    assert "OLD=NEW" in call("compare", base, head, "--rename", "old").err


def test_files_are_written_whatever_the_exit_code(call: Call, store: Store, tmp_path: Path) -> None:
    base, head = str(store("base")), str(store("head", 1.2))
    files = [tmp_path / "deep" / f"told{ending}" for ending in (".md", ".json", ".html", ".tex", ".txt")]
    code, out, _ = call("compare", base, head, *(word for file in files for word in ("--save", str(file))))
    assert code == 1
    assert all("slower" in file.read_text() for file in files)
    assert files[-1].read_text() == out
    code, _, err = call("compare", base, head, "--save", str(tmp_path / "told.doc"))
    assert (code, ".html" in err) == (2, True)


def test_github_gets_a_summary_and_annotations(
    call: Call, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, head = str(store("base")), str(store("head", 1.2))
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    code, out, _ = call("compare", base, head, "--format", "github")
    assert (code, out.count("::error"), "## verdicts: 2 slower" in out) == (1, 2, True)
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    code, out, _ = call("compare", base, head, "--format", "github", "--fail-on", "wrong")
    assert (code, out.count("::warning"), out.startswith("verdicts: 2 slower")) == (0, 2, True)
    assert summary.read_text().startswith("before\n## verdicts: 2 slower")


def test_two_files_of_pytest_benchmark(call: Call, store: Store, tmp_path: Path) -> None:
    files = []
    for name, factor in (("base", 1.0), ("head", 2.0)):
        files.append(tmp_path / f"{name}.json")
        files[-1].write_text(export(read_run(store(name, factor)), "pytest-benchmark"))
    code, out, _ = call("compare", *map(str, files))
    assert (code, "+100.0 %" in out, "not judged" in out, "slower" in out) == (0, True, True, False)
    code, _, err = call("compare", str(files[0]), str(tmp_path / "base"))
    assert (code, "give two of one kind" in err) == (2, True)
    for option in ("--rename=a=b", "--margin=linear=5%"):
        code, _, err = call("compare", *map(str, files), option)
        assert (code, "are of variants and cases, which files of pytest-benchmark lack" in err) == (2, True), err


@pytest.mark.parametrize("form", ["html", "latex", "github", "pytest-benchmark", "github-action"])
def test_report_in_other_formats(call: Call, store: Store, form: str) -> None:
    code, out, _ = call("report", str(store("base")), "--format", form)
    assert code == 0
    assert "mine" in out


def test_merge_of_shards(call: Call, store: Store, tmp_path: Path) -> None:
    def options(index: int) -> dict[str, Any]:
        return {"selection": {"shard": [index, 3]}, "files": []}

    one = str(store("one", cells=slice(0, 1), options=options(1)))
    two = str(store("two", cells=slice(1, 2), options=options(2)))
    code, out, err = call("merge", one, two, "--out", str(tmp_path / "whole"))
    assert code == 0
    assert "1 of 3 shards are missing" in err
    assert "2 shards, 2 cells, 40 samples" in out
    assert "Next: sparsebench report" in out
    told = call("report", str(tmp_path / "whole")).out
    assert "linear-2" in told
    assert "1 of 3 shards are missing: 3/3" in told
    code, _, err = call("merge", one, one, "--out", str(tmp_path / "other"))
    assert (code, "both shard 1/3" in err, err.count("\n")) == (2, True, 1)
    code, _, err = call("merge", one, two, "--out", str(tmp_path / "whole"))
    assert (code, "holds a run already" in err) == (2, True)


def test_history_of_a_case(call: Call, store: Store, tmp_path: Path) -> None:
    for day in range(1, 9):
        store(f"r{day}", 1.2 if day > 4 else 1.0 + day / 1e4, started=f"2026-01-0{day}T00:00:00+00:00")
    code, out, _ = call("history", str(tmp_path), "--case", "linear-1")
    assert code == 0
    assert "mine: slower, +2" in out
    assert f"Next: sparsebench compare {tmp_path}/r4 {tmp_path}/r5" in out
    told = json.loads(call("history", str(tmp_path), "--case", "linear-1", "--json").out)
    assert told["series"][0]["shifts"][0]["since"] == 4
    code, _, err = call("history", str(tmp_path), "--case", "linear-3")
    assert (code, "did you mean" in err) == (2, True)
