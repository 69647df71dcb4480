"""Where a suite asks for details: a line for every row, what its numbers mean, and from where on it pays."""

import csv
import io
import json

import msgspec
import pytest

from sparsebench.report import render
from sparsebench.runs.records import Ceilings, Level
from sparsebench.runs.summary import summarize

replace = msgspec.structs.replace
CEILINGS = Ceilings(
    threads=1, isa="avx2", gflops=1500.0,
    levels=(Level(name="L2", capacity=500_000, gb_s=80.0), Level(name="memory", capacity=0, gb_s=19.5)),
)  # fmt: skip
HOST = {"fingerprint": {"cpu": "AMD EPYC 7713"}, "ceilings": msgspec.to_builtins([CEILINGS])}
DETAILS = {"host": HOST, "peers": ["torch-csr"], "suite": {"name": "suite-kernels", "details": True}}


@pytest.fixture
def detailed(run_of, cells_of):
    def make(sparsities=(0.5, 0.8, 0.9), **changes):
        cells = [replace(c, least_bytes=1e5, products=1) for c in cells_of(sparsities)]
        return summarize(run_of(cells, **{**DETAILS, **changes}))

    return make


def test_a_line_for_every_row(detailed):
    text = render(detailed())
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    head = next(line for line in lines if line.startswith("sparsity, variant"))
    columns = ["sparsity, variant", "time", "ratio", "to peer", "useful", "dense-eq.", "of ceiling"]
    assert [word for word in head.split("  ") if word] == columns or head.split() == " ".join(columns).split()
    rows = [line for line in lines if line.startswith(("0.5 ", "0.8 ", "0.9 "))]
    assert len(rows) == 9
    (fast,) = (line for line in rows if line.startswith("0.9 cython"))
    assert "ms*" in fast
    assert " 2.0" in fast or " 1.9" in fast
    assert fast.rstrip().endswith(" % FMA")


def test_the_columns_are_explained_and_the_ceilings_said(detailed):
    text = " ".join(render(detailed()).split())
    assert "to peer: the fastest of torch-csr there is 1.00x." in text
    assert "ceilings, threads 1: 1500 GFLOP/s (avx2); L2 80.0, memory 19.5 GB/s" in text
    assert "to peer: no peer in this run." in " ".join(render(detailed(peers=[])).split())


def test_ceilings_that_could_not_be_measured_are_said(detailed):
    host = {"fingerprint": {}, "ceilings_error": "the machine's ceilings could not be measured: no such module"}
    text = render(detailed(host=host))
    assert "could not be measured: no such module" in text
    assert "% FMA" not in text


def test_rows_without_a_time_keep_their_reason(detailed):
    def fail(s):
        return replace(s, status="skipped", reason="not here", t_ns=[]) if s.variant == "cython" else s

    text = render(detailed(change=fail))
    assert [line.split() for line in text.splitlines() if line.startswith("0.9 cython")] == [
        ["0.9", "cython", "skipped", "[1]"]
    ]
    assert "  [1] skipped: not here" in text


def test_without_the_wish_the_tables_are_as_ever(detailed):
    text = render(detailed(suite={"name": "suite-cpu"}))
    assert "of ceiling" not in text
    assert "ceilings, threads" not in text
    assert "GFLOP/s *" in text


@pytest.mark.parametrize("details", [True, False])
def test_where_it_begins_to_pay_is_below_every_sweep(detailed, details):
    summary = detailed(suite={"name": "mine", "details": details})
    text = render(summary)
    said = "faster than torch-dense from sparsity: "
    assert f"  {said}torch-csr none up to 0.9, cython < 0.5" in text, "of the case"
    assert f"  {said}cython < 0.5, torch-csr none up to 0.9" in text, "of the means"
    assert said not in render(detailed((0.8, 0.9), suite={"name": "mine", "details": details}))


def test_markdown_csv_and_json_always_have_all(detailed):
    summary = detailed(suite={"name": "mine"})
    markdown = render(summary, "markdown")
    assert "| to best peer" in markdown
    assert "x torch-csr" in markdown
    assert " % FMA" in markdown
    assert "faster than torch-dense from sparsity: torch-csr none up to 0.9, cython &lt; 0.5" in markdown
    assert "- kernel, linear, pass" not in markdown
    assert "- kernel, linear, forward, threads 1: cython &lt; 0.5" in markdown
    assert "1500 GFLOP/s (avx2)" in markdown
    rows = list(csv.DictReader(io.StringIO(render(summary, "csv"))))
    fast = next(r for r in rows if r["variant"] == "cython" and r["sparsity"] == "0.9")
    assert (fast["peer"], fast["ceiling_bound"], fast["ceiling_gflops"]) == ("torch-csr", "FMA", "1500.0")
    assert float(fast["peer_ratio"]) == pytest.approx(4, rel=0.1)
    assert float(fast["ceiling_share"]) == pytest.approx(float(fast["useful_gflops"]) / 1500)
    told = json.loads(render(summary, "json"))
    assert {each["variant"]: each["always"] for each in told["break_evens"]} == {"cython": True, "torch-csr": False}
