"""`report` and `compare` on stored runs: every format, and the exit code that a CI job acts on."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sparsebench.runs.records import CellInfo, RunInfo, Sample
from sparsebench.runs.store import RunWriter

Call = Callable[..., Any]
Store = Callable[..., str]
CELL = {"sparsity": 0.9, "pass": "forward", "threads": 1}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Stores a run of `blocks` blocks in which the variant takes `factor` times as long as in the base run."""

    def run(
        name: str, factor: float = 1.0, blocks: int = 10, cpu: str = "one", jitter: float = 0.0, **last: Any
    ) -> str:  # fmt: skip
        info = RunInfo(
            id=name, argv=["sparsebench"], started="2026-01-01T00:00:00+00:00",
            suite={"name": "tiny", "text": "", "sha256": "", "summary": ""}, host={"fingerprint": {"cpu": cpu}},
            cells=[CellInfo(case="linear", kind="kernel", cell=CELL, version="1", title="linear 8->8", blocks=blocks,
                            variants=["torch-dense", "mine"], baseline="torch-dense")],
        )  # fmt: skip
        with RunWriter.create(tmp_path / name, info) as writer:
            for block in range(blocks):
                wobble = 1 + 0.001 * (block % 3)
                for variant, ns in (("torch-dense", 1e6 * wobble), ("mine", 5e6 * factor * (1 + jitter * (block % 2)))):
                    said: dict[str, Any] = {"status": "ok", "t_ns": [ns] * 4, "loops": 1}
                    if variant == "mine" and block == blocks - 1 and last:
                        said = last
                    writer.append([Sample(case="linear", cell=CELL, variant=variant, block=block, **said)])
        return str(tmp_path / name)

    return run


def test_report_in_every_format(call: Call, store: Store) -> None:
    run = store("base")
    assert "mine" in call("report", run).out
    assert "| mine" in call("report", run, "--format", "markdown").out
    assert {row["variant"] for row in json.loads(call("report", run, "--format", "json").out)["rows"]} == {
        "torch-dense",
        "mine",
    }
    rows = list(csv.DictReader(io.StringIO(call("report", run, "--format", "csv").out)))
    assert [row["variant"] for row in rows] == ["torch-dense", "mine"]
    assert json.loads(call("report", run, "--format", "pyperf").out)["benchmarks"]


def test_report_of_several_runs_follows_one_another(call: Call, store: Store) -> None:
    one, two = store("one"), store("two")
    code, out, _ = call("report", one, two)
    assert (code, out.count("WHO WINS")) == (0, 2)
    code, _, err = call("report", one, two, "--format", "csv")
    assert (code, "one run" in err) == (2, True)


def test_latest_is_looked_for_where_runs_lie(call: Call, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(store("base"))
    (folder.parent / "results").mkdir()
    folder.rename(folder.parent / "results" / "tiny-20260101T000000Z-base")
    monkeypatch.chdir(folder.parent)
    assert "mine" in call("report", "latest").out
    assert "mine" in call("report", "tiny").out


def test_a_torn_record_is_said_and_the_rest_is_read(call: Call, store: Store) -> None:
    run = store("base")
    with (Path(run) / "samples.jsonl").open("a") as samples:
        samples.write('{"case": "lin')
    code, out, _ = call("report", run)
    assert code == 0
    assert "torn" in out


@pytest.mark.parametrize(
    ("head", "args", "code", "word"),
    [
        ({}, [], 0, "same"),
        ({"factor": 1.2}, [], 1, "slower"),
        ({"factor": 1.2}, ["--fail-on", "wrong"], 0, "slower"),
        ({"factor": 1.2}, ["--fail-on", "none"], 0, "slower"),
        ({"factor": 1.2}, ["--margin", "30%"], 0, "same"),
        ({"factor": 1.2}, ["--margin", "0.3"], 0, "same"),
        ({"factor": 0.8}, [], 0, "faster"),
        ({"blocks": 4}, [], 0, "inconclusive"),
        ({"blocks": 4}, ["--fail-on", "slower,inconclusive"], 5, "inconclusive"),
        ({"status": "wrong", "reason": "off by 2"}, [], 3, "wrong"),
        ({"status": "crash", "reason": "signal 11"}, [], 4, "failed"),
        ({"status": "skipped", "reason": "not installed"}, [], 1, "missing"),
        ({"factor": 1.2, "cpu": "two"}, [], 0, "not judged"),
        ({"factor": 1.2, "cpu": "two"}, ["--force"], 1, "slower"),
    ],
    ids=lambda value: ",".join(map(str, value)) if isinstance(value, dict | list) else None,
)
def test_compare(call: Call, store: Store, head: dict[str, Any], args: list[str], code: int, word: str) -> None:
    base, other = store("base"), store("head", **head)
    seen = call("compare", base, other, *args)
    assert (seen.code, word in seen.out) == (code, True), seen.out + seen.err
    told = json.loads(call("compare", base, other, *args, "--format", "json").out)
    assert [row["verdict"] for row in told["rows"] if row["variant"] == "mine"] == [word]


def test_the_next_command_stands_at_the_end_of_a_table_alone(call: Call, store: Store) -> None:
    base, head = store("base"), store("head")
    assert call("report", head).err == f"\nNext: sparsebench compare BASE {head}\n"
    assert call("report", base, head).err == f"\nNext: sparsebench compare BASE {head}\n"
    for words in (("compare", base, head), ("report", head)):
        assert call(*words, "--format", "markdown").err == ""


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ({}, "sparsebench report "),
        ({"factor": 1.2}, "sparsebench report "),
        ({"blocks": 4}, "sparsebench ab A B, side by side"),
        ({"jitter": 0.1}, "sparsebench ab A B, side by side"),
        ({"cpu": "two"}, "sparsebench ab A B, side by side"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else None,
)
def test_after_compare_comes_what_judges_the_rest(call: Call, store: Store, head: dict[str, Any], words: str) -> None:
    assert call("compare", store("base"), store("head", **head)).err.startswith(f"\nNext: {words}")


@pytest.mark.parametrize("where", ["run.json/x.md", "run.json/deeper/x.md", ".md", "folder.md"])
def test_a_place_where_nothing_can_be_kept_is_said_before_anything_is_done(
    call: Call, store: Store, where: str
) -> None:
    base = Path(store("base"))
    (base / "folder.md").mkdir()
    (base / ".md").mkdir()
    for words in (("compare", "nothing", "nowhere"), ("ab", "cython", "cpp", "--suite", "nothing")):
        code, out, err = call(*words, "--save", str(base / where))
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert f"--save {base / where}: " in err


def test_a_file_that_is_kept_gets_its_folder(call: Call, store: Store, tmp_path: Path) -> None:
    base = store("base")
    for _ in range(2):
        assert call("compare", base, base, "--save", str(tmp_path / "new" / "x.md")).code == 0
    assert "mine" in (tmp_path / "new" / "x.md").read_text()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--margin", "lots"], ["--margin lots", "3%"]),
        (["--margin", "0"], ["--margin 0"]),
        (["--margin", "-3%"], ["--margin -3%"]),
        (["--fail-on", "slwer"], ["'slwer'", "did you mean 'slower'"]),
        (["--format", "xml"], ["'xml'", "markdown"]),
        (["--rename", "mine=torch-dense"], ["--rename mine=torch-dense", "base has a variant torch-dense already"]),
        (["--rename", "mine=x", "--rename", "torch-dense=x"], ["--rename torch-dense=x: mine is renamed to x as well"]),
        (["--rename", "mine=x", "--rename", "mine=y"], ["--rename mine=y: mine is renamed to x as well"]),
    ],
)
def test_what_cannot_be_used_is_said(call: Call, store: Store, args: list[str], words: list[str]) -> None:
    base = store("base")
    code, out, err = call("compare", base, base, *args)
    assert (code, out, err.count("\n")) == (2, "", 1)
    for word in words:
        assert word in err
