"""Rows become panels, reasons become footnotes."""

from sparsebench.report._grid import fit
from sparsebench.report._layout import Footnotes, column_axis, common_words, panels, where_and_when
from sparsebench.runs.summary import summarize


def test_one_panel_for_every_case_and_pass(run_of, cells_of):
    found = panels(summarize(run_of(cells_of(cases=("a", "b"), passes=("forward", "both")))).rows)
    assert [(p.case, p.fixed["pass"], p.columns) for p in found] == [
        (case, what, ("0.8", "0.9")) for case in "ab" for what in ("forward", "both")
    ]
    assert found[0].heading == "a: linear 1024->1024 batch 128, forward, threads 1"
    assert [row.variant for row in found[0].all_rows()] == [v for v in found[0].rows for _ in range(2)]


def test_the_axis_that_stands_across():
    assert column_axis([{"sparsity": 0.9, "pass": "a"}, {"sparsity": 0.9, "pass": "b"}]) == "sparsity"
    assert column_axis([{"pass": "a", "threads": 1}, {"pass": "b", "threads": 1}]) == "pass"
    assert column_axis([{"pass": "a"}]) == "pass"
    assert column_axis([{}]) == ""


def test_words_in_common():
    assert common_words(["lin 8 at 0.8, both", "lin 8 at 0.9, both"]) == "lin 8, both"
    assert common_words(["lin 8 at 0.8, both"]) == "lin 8 at 0.8, both"
    assert common_words(["step, gmp 0.8", "step, gmp 0.9"]) == "step, gmp"
    assert common_words(["one", "one two"]) == "one"


def test_a_reason_is_said_once_and_fits():
    notes = Footnotes()
    assert [notes.mark(t) for t in ("a " * 80, "b", "a " * 80, "")] == ["[1]", "[2]", "[1]", ""]
    lines = notes.lines()
    assert max(map(len, lines)) <= 100
    assert lines[0].startswith("  [1] a a")
    assert lines[-1] == "  [2] b"


def test_tables_shrink_then_split():
    wide, narrow = [["n", "x" * 120], ["a", "1"]], [["n", "x"], ["a", "1"]]
    assert "x" * 120 not in "".join(fit([wide, narrow]))
    many = [["name", *(f"column {i}" for i in range(30))], ["a", *map(str, range(30))]]
    lines = fit([many])
    assert max(map(len, lines)) <= 100
    assert sum(line.startswith("a ") for line in lines) > 1
    assert all(f"column {i}" in "\n".join(lines) for i in range(30))


def test_first_line(run_of):
    info = run_of(git={"commit": "0123456789abcdef", "dirty": True}).info
    said = "suite-cpu · AMD EPYC 7713 · 2 cores · threads 1 · blocks 5 · 2026-11-20 23:00 UTC · 0123456789+changes"
    assert where_and_when(info) == said
