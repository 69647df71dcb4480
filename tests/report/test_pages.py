"""Whole pages of HTML that load nothing, LaTeX in which no name is a command, and what GitHub is told."""

import re
from html.parser import HTMLParser

import msgspec
import pytest

from sparsebench.report import render, render_comparison, render_duels
from sparsebench.report.github import LIMIT, MOST, _within, workflow_commands
from sparsebench.report.latex import escaped
from sparsebench.runs.compare import compare_runs
from sparsebench.runs.duel import Duel
from sparsebench.runs.summary import summarize

replace = msgspec.structs.replace
SLOW = {"torch-dense": 2e6, "torch-csr": 4e6, "cython": 1.4e6}
NASTY = "50 % of <b>A&B</b> | x_1 {y} $z$ \\end ~^#"


def failing(s):
    return replace(s, status="error", reason=NASTY, t_ns=[]) if s.variant == "torch-csr" else s


class Page(HTMLParser):
    """Fails on what is not closed in order; keeps the text and what would be loaded."""

    def __init__(self):
        super().__init__()
        self.open, self.words, self.loads = [], [], []

    def handle_starttag(self, tag, attrs):
        if tag != "meta":
            self.open.append(tag)
        self.loads += [value for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def read(text):
    page = Page()
    page.feed(text)
    page.close()
    assert page.open == []
    return page


def test_a_run_as_a_page(run_of):
    text = render(summarize(run_of(change=failing)), "html")
    page = read(text)
    assert page.loads == []
    assert "script" not in text
    assert any(NASTY in word for word in page.words)
    assert "cython" in page.words
    assert 'class="best"' in text
    assert text.startswith("<!doctype html>")


def test_a_page_that_is_not_closed_is_seen(run_of):
    with pytest.raises(AssertionError):
        read(render(summarize(run_of()), "html").replace("</table>", "", 1))


def test_a_comparison_as_a_page(run_of):
    text = render_comparison(compare_runs(run_of(), run_of(times=SLOW, seed=9)), "html")
    read(text)
    assert '<td class="slower">slower' in text


@pytest.mark.parametrize("of", ["run", "comparison"])
def test_latex_is_whole(run_of, of):
    if of == "run":
        text = render(summarize(run_of(change=failing)), "latex")
        assert "\\textbf{" in text
        assert "error" in text
    else:
        text = render_comparison(compare_runs(run_of(), run_of(change=failing)), "latex")
        assert escaped(NASTY) in text
    for name in ("table", "tabular"):
        assert text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}") > 0
    for table in re.findall(r"\\begin\{tabular\}\{(l+r*)\}(.*?)\\end\{tabular\}", text, re.S):
        rows = [line for line in table[1].splitlines() if line.endswith(r"\\")]
        assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(table[0]) - 1}


def test_latex_escapes_every_special():
    assert escaped("a_b & 5 % {x} \\y #1 $2 ~^") == (
        r"a\_b \& 5 \% \{x\} \textbackslash{}y \#1 \$2 \textasciitilde{}\textasciicircum{}"
    )


def test_a_step_summary_has_what_matters_in_the_open(run_of):
    text = render_comparison(compare_runs(run_of(), run_of(times=SLOW, seed=9)), "github")
    assert text.startswith("## verdicts: 2 slower")
    first, _, folded = text.partition("<details>")
    assert "slower" in first.split("\n", 1)[1]
    assert "inconclusive" not in first.split("\n", 1)[1]
    assert "torch-csr" in folded
    assert folded.rstrip().endswith("</details>")


def test_a_summary_that_is_too_long_says_how_much_is_not_there():
    lines = ["<details><summary>x</summary>", *(["y" * 1000] * 1000), "</details>"]
    found = _within(lines)
    assert len("\n".join(found).encode()) <= LIMIT + 200
    assert found.count("</details>") == 1
    shown = sum(line.startswith("y") for line in found)
    assert found[-1].startswith(f"{len(lines) - 1 - shown} lines do not fit into a step summary")


def test_annotations_of_what_fails_the_job(run_of):
    comparison = compare_runs(run_of(), run_of(times=SLOW, seed=9, change=failing))
    lines = workflow_commands(comparison, {"failed"})
    assert [line.partition(" ")[0] for line in lines] == ["::error"] * 2 + ["::warning"] * 2
    assert lines[0].startswith("::error title=failed%3A torch-csr in linear-1024::sparsity 0.8, forward, threads 1; ")
    assert "50 %25 of" in lines[0]
    assert all("\n" not in line for line in lines)
    assert workflow_commands(compare_runs(run_of(), run_of())) == []


def test_more_than_github_shows_are_counted(run_of, cells_of):
    cells = cells_of(sparsities=tuple(i / 100 for i in range(50, 65)))
    lines = workflow_commands(compare_runs(run_of(cells), run_of(cells, change=failing)))
    assert len(lines) == MOST
    assert lines[-1] == "::error title=sparsebench::6 more rows; see the summary"


def test_a_run_as_a_step_summary(run_of):
    text = render(summarize(run_of(change=failing)), "github")
    assert "### Who wins" in text
    assert "### 2 rows failed" in text
    assert "- error: torch-csr in linear-1024, sparsity 0.8, forward, threads 1: 50 % of &lt;b>A" in text


@pytest.mark.parametrize("form", ["markdown", "github"])
def test_what_ab_found_cannot_break_its_page(form):
    """Reasons are other people's text, and names may come from a file: none ends a cell, a fold or the page."""
    duel = Duel(
        case="a|<i>", title="t", cell={"sparsity": 0.9, "pattern": "<s>|"}, a="a|<u>", b="cpp", verdict="wrong",
        reason="expected <class 'torch.Tensor'> | </details>",
    )  # fmt: skip
    text = render_duels([duel, replace(duel, verdict="failed", reason="two\nlines")], form)
    assert "<" not in text
    assert "- [1] expected &lt;class 'torch.Tensor'> \\| &lt;/details>\n- [2] two lines\n" in text
    assert "A: a\\|&lt;u> · B: cpp" in text
    bars = {len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if line.startswith("|")}
    assert bars == {9}, "eight columns in every row"
    assert "pattern &lt;s>\\|" in text
