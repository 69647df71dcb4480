"""The terminal's tables: 100 columns, the baseline in ms, others as ratios, failures with reasons, who wins."""

import msgspec
import pytest

from sparsebench.report import _layout, render
from sparsebench.report._layout import ROUGH, ROUGH_LEGEND
from sparsebench.report.table import BEST, GFLOPS, OTHER_CLASS
from sparsebench.runs.records import CellInfo
from sparsebench.runs.summary import summarize

replace = msgspec.structs.replace


def lines_with(text, start):
    return [line for line in text.splitlines() if line.startswith(start)]


def test_a_plain_run(run_of):
    text = render(summarize(run_of()))
    assert text.endswith("\n")
    assert text.splitlines()[0].startswith("suite-cpu · AMD EPYC 7713")
    case, mean = lines_with(text, "cython")
    assert case.split()[1].startswith(("1.9", "2.0"))
    assert case.count(f"x{BEST}") == 2
    assert mean.count(f"x{BEST}") == 2
    assert lines_with(text, "torch-dense")[0].count(" ms") == 2
    assert "linear-1024: linear 1024->1024 batch 128, forward, threads 1" in text
    assert "  fastest: cython at 0.8, 0.9" in text
    assert "rows: 6 ok" in text


def test_every_line_fits(run_of, cells_of):
    names = {f"a-rather-long-plugin-name-{i}@isa=avx512": 1e6 + i * 1e3 for i in range(3)} | {"torch-dense": 1.2345e9}

    def change(s):
        return replace(s, status="error", reason="word " * 60, t_ns=[]) if s.variant.endswith("-1@isa=avx512") else s

    cells = cells_of(sparsities=(0.5, 0.8, 0.9, 0.95, 0.98, 0.99), variants=tuple(names))
    text = render(summarize(run_of(cells, names, change=change)))
    assert max(map(len, text.splitlines())) <= 100


def failing(s):
    if s.variant == "cython":
        return replace(s, status="wrong", reason="grad_input is off by 0.7", t_ns=[])
    return replace(s, status="skipped", reason="no such library", t_ns=[]) if s.variant == "torch-csr" else s


def test_failures_stay_with_their_reason_and_no_number(run_of):
    text = render(summarize(run_of(change=failing)))
    assert lines_with(text, "cython")[0].split() == ["cython", *["wrong", "[2]"] * 2]
    assert lines_with(text, "torch-csr")[0].split() == ["torch-csr", *["skipped", "[1]"] * 2]
    assert "  [1] skipped: no such library" in text
    assert text.count("grad_input is off by 0.7") == 1
    assert "left out: torch-csr: skipped in 1 of 1; cython: wrong in 1 of 1" in text
    assert "rows: 2 ok, 2 skipped, 2 wrong" in text


def test_other_precision_classes_are_marked(run_of):
    text = render(summarize(run_of(precision={"cython": "bfloat16"})))
    line = lines_with(text, f"cython {OTHER_CLASS}")[0]
    assert BEST not in line
    assert "x" in line
    assert "another precision class" in text
    assert OTHER_CLASS not in render(summarize(run_of()))


def test_notes_and_losses(run_of):
    def change(s):
        s = replace(s, note="channels-last") if s.variant == "torch-dense" and s.cell["sparsity"] == 0.9 else s
        return replace(s, status="contaminated") if s.block == 0 else replace(s, dropped=[0])

    text = render(summarize(run_of(change=change)))
    assert "  torch-dense: channels-last (in 1 of 2)" in text
    assert "spoiled by other work, over all rows: 24 of 360 rounds, 6 of 30 blocks" in text


def test_the_same_note_of_several_variants_is_said_once(run_of):
    def change(s):
        return s if s.variant == "torch-dense" else replace(s, note="1 of 2 pruned layers sparse")

    text = render(summarize(run_of(change=change)))
    assert "  torch-csr, cython: 1 of 2 pruned layers sparse" in text.splitlines()


def test_the_fastest_of_each_column_is_told_in_gflops(run_of):
    summary = summarize(run_of())
    text = render(summary)
    (line,) = lines_with(text, GFLOPS)
    useful, slash, dense = line.removeprefix(GFLOPS).split()[:3]
    best = next(row for row in summary.rows if row.is_best)
    assert slash == "/"
    assert (float(useful), float(dense)) == pytest.approx((best.useful_gflops, best.dense_gflops), rel=0.01)
    assert f"{GFLOPS}: of the fastest, useful / dense-equivalent." in text


def test_no_gflops_where_no_one_knows_the_work_or_no_one_is_fastest(run_of, cells_of):
    unknown = [replace(c, useful_flop=0.0, dense_flop=0.0) for c in cells_of()]
    assert "GFLOP/s" not in render(summarize(run_of(unknown)))
    assert "GFLOP/s" not in render(summarize(run_of(change=rough)))


def test_problems_of_the_file_are_said(run_of):
    run = run_of()
    text = render(summarize(type(run)(run.info, run.samples, ("samples.jsonl line 3: corrupt",), run.path)))
    assert "samples.jsonl line 3: corrupt" in text


@pytest.fixture
def training_run(run_of):
    cell = CellInfo(
        case="step", kind="training", cell={"sparsity": 0.9, "threads": 1}, version="1", title="resnet18, step",
        blocks=3, variants=["torch-dense", "torch-csr", "cython"], baseline="torch-dense",
    )  # fmt: skip

    def change(s):
        if s.variant == "torch-csr":
            return replace(s, status="oom", reason="more than 2 GiB", t_ns=[])
        splits = {part: share * 1e6 for part, share in (("data", 0.1), ("forward", 0.5), ("backward", 1.0))}
        return replace(s, splits_ns=splits, metrics={"accuracy": 0.971, "loss": 0.12}, rss_peak=200 * 2**20)

    return run_of([cell], change=change)


def test_training_says_where_the_time_goes(training_run):
    text = render(summarize(training_run))
    assert "TRAINING (ms)" in text
    assert "step: resnet18, step, threads 1, ms per step" in text.splitlines()
    assert lines_with(text, "of which, per step")
    head = "sparsity 0.9    time     ratio    accuracy    loss    memory"
    assert lines_with(text, "sparsity 0.9")[0].split() == head.split()
    row, parts, _ = lines_with(text, "cython")
    assert "97.1 %" in row
    assert "0.1200" in row
    assert "200 MiB" in row
    assert parts.split() == ["cython", "0.100", "ms", "0.500", "ms", "1.00", "ms"]
    assert lines_with(text, "torch-csr") == ["torch-csr       oom [1]"]


def whole(s):
    return replace(s, metrics=s.metrics | {"steps": 40.0}) if s.metrics else s


@pytest.mark.parametrize("name", ["table", "markdown"])
def test_a_whole_training_is_not_headed_as_a_step(training_run, name):
    trained = replace_samples(training_run, tuple(map(whole, training_run.samples)))
    text = render(summarize(trained), name)
    assert "step: resnet18, step, threads 1, ms per training" in text
    assert "ms per step" not in text
    assert "ms per training" not in render(summarize(training_run), name)
    assert "per step" in text, "its parts are of a step all the same"


def test_a_training_that_nobody_finished_has_no_unit(training_run):
    failed = [replace(s, status="oom", reason="", t_ns=[], metrics={}) for s in training_run.samples]
    assert "ms per" not in render(summarize(replace_samples(training_run, tuple(failed))))


def rough(s):
    return replace(s, status="contaminated") if s.status == "ok" else s


def test_rough_rows_are_shown_marked_explained_and_never_win(run_of):
    text = render(summarize(run_of(change=rough)))
    assert lines_with(text, "torch-dense")[0].count(f" ms{ROUGH} ") == 2
    (case,) = lines_with(text, "cython")  # it stands in no table of means
    assert case.count(f"x{ROUGH} ") == 2
    assert BEST not in text
    assert " ".join(text.split()).count(ROUGH_LEGEND) == 1
    assert "take the time as a hint" not in text
    assert "  left out: torch-dense, torch-csr, cython: contaminated in 1 of 1" in text
    assert "over all rows: 0 of 360 rounds, 30 of 30 blocks" in text
    assert ROUGH not in render(summarize(run_of()))


def test_what_nobody_won_is_said_once_for_all(run_of, cells_of):
    text = render(summarize(run_of(cells_of(passes=("forward", "both")), change=rough)))
    assert "kernel linear, forward, threads 1; kernel linear, both, threads 1" in text.splitlines()
    assert text.count("no winner") == 1


def test_a_rough_training_row_is_marked_in_time_and_ratio(training_run):
    text = render(summarize(replace_samples(training_run, tuple(map(rough, training_run.samples)))))
    row, parts = lines_with(text, "cython")
    assert f" ms{ROUGH} " in row
    assert f"x{ROUGH} " in row
    assert "97.1 %" in row
    assert parts.split()[1:3] == ["0.100", "ms"]


def replace_samples(run, samples):
    return type(run)(run.info, samples, run.problems, run.path)


def test_an_empty_plan_is_still_a_report(run_of):
    assert "rows: none" in render(summarize(run_of([])))


def test_of_a_long_run_the_terminal_gets_who_wins_and_the_rows_counted(run_of, monkeypatch):
    def fail(s):
        hit = s.variant == "torch-csr" and s.cell["sparsity"] == 0.9
        return msgspec.structs.replace(s, status="crash", reason="no luck", t_ns=[]) if hit else s

    summary = summarize(run_of(change=fail))
    short = render(summary)
    assert "not listed" not in short
    monkeypatch.setattr(_layout, "LISTED", 5)
    text = render(summary)
    assert "not listed, 6 rows (--format markdown, csv or json has them all):" in text
    assert "  linear-1024: 5 ok, 1 crash [1]\n" in text
    assert "[1] crash: no luck" in text
    assert text[text.index("WHO WINS") :] == short[short.index("WHO WINS") :]
