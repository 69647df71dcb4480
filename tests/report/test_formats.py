"""Markdown has every detail, JSON and CSV every number; a comparison reads in three formats."""

import csv
import io
import json

import msgspec
import pytest

from sparsebench.errors import UsageError
from sparsebench.report import COMPARISON_FORMATS, _layout, _verdicts, formats, render, render_comparison
from sparsebench.runs.compare import compare_runs
from sparsebench.runs.summary import summarize

replace = msgspec.structs.replace
SLOW = {"torch-dense": 2e6, "torch-csr": 4e6, "cython": 1.4e6}


def failing(s):
    hit = s.variant == "torch-csr"
    return replace(s, status="error", reason="a | b <c>\nd", t_ns=[]) if hit else replace(s, metrics={"loss": 0.5})


def test_formats_are_the_files(run_of):
    assert formats() == ["csv", "github", "html", "json", "latex", "markdown", "table"]
    with pytest.raises(UsageError, match="did you mean 'markdown'"):
        render(summarize(run_of()), "markdwon")
    with pytest.raises(UsageError, match="format 'csv' is not known"):
        render_comparison(compare_runs(run_of(), run_of()), "csv")


@pytest.mark.parametrize("name", formats())
def test_rendering_is_pure(run_of, name):
    summary = summarize(run_of(change=failing))
    before = msgspec.json.encode(summary)
    assert render(summary, name) == render(summary, name)
    assert msgspec.json.encode(summary) == before


def test_markdown_tables_are_whole(run_of):
    text = render(summarize(run_of(change=failing, libraries={"torch": "2.13"})), "markdown")
    table: list[int] = []
    for line in text.splitlines():
        bars = line.replace("\\|", "").count("|")
        if bars:
            table.append(bars)
            assert bars == table[0], line
        else:
            table = []
    assert "- [1] error: a \\| b &lt;c> d" in text
    assert "| **cython**" in text
    assert "useful GFLOP/s" in text
    assert "1.0e-07 / 1.0e-05" in text
    assert "| library torch" in text


def test_csv_has_a_line_for_every_row(run_of):
    rows = list(csv.DictReader(io.StringIO(render(summarize(run_of(change=failing)), "csv"))))
    assert len(rows) == 6
    fast = next(r for r in rows if r["variant"] == "cython")
    assert float(fast["ratio"]) == pytest.approx(2, rel=0.1)
    assert (fast["sparsity"], fast["pass"], fast["is_best"], fast["loss"]) == ("0.8", "forward", "1", "0.5")
    bad = next(r for r in rows if r["variant"] == "torch-csr")
    assert (bad["status"], bad["ms"], bad["loss"], bad["reason"]) == ("error", "", "", "a | b <c>\nd")


def test_json_has_every_field(run_of):
    told = json.loads(render(summarize(run_of(change=failing)), "json"))
    assert told["counts"] == {"ok": 4, "error": 2}
    assert len(told["rows"]) == 6
    assert told["rows"][0]["cell"] == {"sparsity": 0.8, "pass": "forward", "threads": 1}
    assert told["rows"][1]["ms"] is None
    assert told["contests"][0]["standings"][0]["variant"] == "cython"
    assert told["info"]["id"] == "run-0"


def spoiled(s):
    return replace(s, status="contaminated") if s.variant == "cython" else s


def test_a_score_named_like_an_axis_has_a_column_of_its_own(run_of):
    def trained(sample):
        return replace(sample, metrics={"sparsity": 0.91, "accuracy": 0.5}) if sample.variant == "cython" else sample

    text = render(summarize(run_of(change=trained)), "csv")
    names = text.splitlines()[0].split(",")
    assert len(names) == len(set(names))
    rows = list(csv.DictReader(io.StringIO(text)))
    assert {row["sparsity"] for row in rows} == {"0.8", "0.9"}
    assert {row["variant"]: row["sparsity_reached"] for row in rows}["cython"] == "0.91"


def test_rough_rows_in_every_format(run_of):
    summary = summarize(run_of(change=spoiled))
    markdown = render(summary, "markdown")
    assert "~ = a rough idea, not a result" in markdown
    row = next(line for line in markdown.splitlines() if "| cython" in line)
    assert row.count("~ ") == 2  # time and ratio
    assert "~" not in render(summarize(run_of()), "markdown")
    told = list(csv.DictReader(io.StringIO(render(summary, "csv"))))
    assert {r["variant"]: r["is_rough"] for r in told} == {"torch-dense": "0", "torch-csr": "0", "cython": "1"}
    assert all(float(r["ms"]) > 0 for r in told)
    rows = json.loads(render(summary, "json"))["rows"]
    assert [r["variant"] for r in rows if r["is_rough"]] == ["cython", "cython"]


@pytest.fixture
def slower(run_of):
    return compare_runs(run_of(), run_of(times=SLOW, seed=9))


def test_a_comparison_for_the_terminal(slower):
    text = render_comparison(slower)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    assert "linear-1024: linear 1024->1024 batch 128, forward, threads 1" in text
    rows = [line for line in lines if line.startswith("0.")]
    assert " .. " in rows[0]
    assert "slower [1]" in rows[0]
    assert "cython" in rows[0]
    assert "+4" in rows[0] or "+3" in rows[0]
    assert "  [1] by more than 3 margins" in text
    assert lines[-1] == "verdicts: 2 slower, 2 inconclusive, 2 anchor"


def test_of_a_long_comparison_the_terminal_gets_the_news_and_counts_the_rest(slower, monkeypatch):
    monkeypatch.setattr(_layout, "LISTED", 5)
    text = render_comparison(slower)
    rows = [line for line in text.splitlines() if line.startswith("0.")]
    assert [" slower " in row for row in rows] == [True, True]
    assert "not listed, 4 of the rows (--format markdown" in text
    assert "  2 inconclusive: 5 and 5 blocks: verdicts need 10 good ones a side" in text
    assert "  2 anchor: the baseline is what the others are measured by\n" in text
    assert text.endswith("verdicts: 2 slower, 2 inconclusive, 2 anchor\n")
    monkeypatch.setattr(_verdicts, "REASONS", 1)
    assert "  2 for other reasons\n" in render_comparison(slower)


def test_a_comparison_in_markdown_and_json(slower):
    text = render_comparison(slower, "markdown")
    assert "**verdicts: 2 slower, 2 inconclusive, 2 anchor**" in text
    assert "## linear-1024" in text
    told = json.loads(render_comparison(slower, "json"))
    assert told["worst"] == "slower"
    assert {row["verdict"] for row in told["rows"]} == {"slower", "inconclusive", "anchor"}


@pytest.mark.parametrize("name", COMPARISON_FORMATS)
def test_other_hosts_are_said_in_every_format(run_of, name):
    other = {"fingerprint": {"cpu": "Xeon"}}
    text = render_comparison(compare_runs(run_of(), run_of(host=other)), name)
    assert "hosts differ in cpu: AMD EPYC 7713 / Xeon" in text
    assert "not judged" in text
