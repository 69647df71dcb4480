"""Trainings in reports: methods beside their reference, who is most accurate, what failed and why, in every format."""

import json

import msgspec
import pytest

from sparsebench.report import render
from sparsebench.report._layout import BEST
from sparsebench.runs.records import CellInfo
from sparsebench.runs.summary import summarize

ACCURACIES = {"dense": 0.95, "static": 0.80, "gmp": 0.90, "acdc": 0.93}
BYTES = {"bytes_csr": 80 * 1024.0, "bytes_bitmask": 50 * 1024.0, "bytes_dense": 400 * 1024.0}
SPLITS = {"data": 1e5, "forward": 5e5, "backward": 1e6, "optimizer": 2e5, "mask": 2e5}
KINDS = ("accuracy", "time-to-accuracy")
replace = msgspec.structs.replace


def cells(kind="accuracy", case="digits", seeds=(0, 1, 2), sparsities=(0.9, 0.95), methods=("static", "gmp", "acdc")):
    return [
        CellInfo(case=case, kind=kind, cell={"seed": seed, "sparsity": sparsity, "threads": 1}, version="v", blocks=1,
                 title="mlp on digits, 3 epochs at batch 32, erk", baseline="dense",
                 variants=["dense"] if sparsity == 0 else list(methods))
        for seed in seeds
        for sparsity in (0.0, *sparsities)
    ]  # fmt: skip


def trained(s):
    """A training that ended well: the accuracy falls with the sparsity and differs between seeds."""
    sparsity, seed = s.cell["sparsity"], s.cell["seed"]
    accuracy = ACCURACIES[s.variant.partition("@")[0]] - 0.1 * sparsity + 0.01 * seed
    shares = {"sparsity": sparsity, "sparsity_all": sparsity - 0.01, "sparsity_flops": sparsity - 0.02}
    metrics = {"accuracy": accuracy, "training_seconds": 12.5, **BYTES, **shares}
    return replace(s, metrics=metrics, splits_ns=dict(SPLITS))


def summary_of(run_of, planned=None, change=trained):
    planned = cells() if planned is None else planned
    names = {name for cell in planned for name in cell.variants}
    return summarize(run_of(planned, dict.fromkeys(names, 1e9), change=change))


def cut(text):
    """The cells of a table's line."""
    return [part.strip() for part in text.split("  ") if part.strip()]


def lines_with(text, start):
    return [line for line in text.splitlines() if line.startswith(start)]


def failing(status="error", reason="the loss is nan at step 3", variant="gmp", seeds=(0, 1, 2)):
    def change(s):
        hit = s.variant == variant and s.cell["seed"] in seeds
        return replace(s, status=status, reason=reason, t_ns=[]) if hit else trained(s)

    return change


def test_every_row_is_there_with_its_numbers(run_of):
    text = render(summary_of(run_of))
    assert "digits: mlp on digits, 3 epochs at batch 32, erk, threads 1, 3 seeds" in text.splitlines()
    dense, costs = lines_with(text, "dense ")
    assert cut(dense) == ["dense", "96.00 % ±1.00", "12.5 s"]
    assert cut(costs) == ["dense", "2.00", "0.100", "0.500", "1.00", "0.200", "0.200", "400 KiB dense"]
    for sparsity in ("0.9", "0.95"):
        for name in ("static", "gmp", "acdc"):
            assert len(lines_with(text, f"{sparsity} {name} ")) == 2, "results and costs"
    assert cut(lines_with(text, "0.9 gmp")[0]) == [
        "0.9 gmp", "82.00 % ±1.00", "-14.00", "0.900 0.890 0.880", "12.5 s",
    ]  # fmt: skip
    assert cut(lines_with(text, "0.9 gmp")[1])[-1] == "80 KiB / 50 KiB"
    assert "rows: 21 ok" in text


def test_the_most_accurate_of_each_sparsity_is_marked_and_told(run_of):
    text = render(summary_of(run_of))
    marked = [line.split()[1] for line in text.splitlines() if f"% ±1.00 {BEST}" in line]
    assert marked == ["acdc", "acdc"]
    assert "  most accurate: acdc at 0.9; acdc at 0.95" in text.splitlines()
    alike = render(summary_of(run_of, change=trained_with(gmp=ACCURACIES["acdc"])))
    assert "most accurate: gmp at 0.9 (not told apart from acdc); gmp at 0.95 (not told apart from acdc)" in alike


def trained_with(**accuracies):
    def change(s):
        made = trained(s)
        shift = accuracies.get(s.variant, ACCURACIES[s.variant]) - ACCURACIES[s.variant]
        return replace(made, metrics={**made.metrics, "accuracy": made.metrics["accuracy"] + shift})

    return change


@pytest.mark.parametrize("style", ["table", "markdown"])
def test_the_winner_of_one_case_is_not_marked_in_another(run_of, style):
    planned = [*cells(sparsities=(0.9,)), *cells(case="other", sparsities=(0.9,))]

    def change(s):
        return trained_with(gmp=0.99)(s) if s.case == "other" else trained(s)

    text = render(summary_of(run_of, planned, change), style)
    winners = [line.strip("| ").split()[1] for line in text.splitlines() if f"% ±1.00 {BEST}" in line]
    assert winners == ["acdc", "gmp"]


def test_a_method_that_failed_has_its_reason_as_a_footnote_and_no_number(run_of):
    text = render(summary_of(run_of, change=failing()))
    for sparsity in ("0.9", "0.95"):
        assert [cut(line) for line in lines_with(text, f"{sparsity} gmp")] == [[f"{sparsity} gmp", "error [1]"]]
    assert text.count("[1] error: the loss is nan at step 3") == 1
    assert "rows: 15 ok, 6 error" in text


def test_a_method_that_failed_with_a_seed_says_how_many_its_mean_is_over_and_does_not_win(run_of):
    text = render(summary_of(run_of, change=failing("timeout", "no answer in 5 s", "acdc", seeds=(1,))))
    assert cut(lines_with(text, "0.9 acdc")[0])[1] == "85.00 % ±1.41 2 of 3 seeds [1]"
    assert "  [1] timeout: no answer in 5 s" in text.splitlines()
    assert "  most accurate: gmp at 0.9; gmp at 0.95" in text.splitlines()


def test_what_was_never_measured_is_a_row_too(run_of):
    text = render(summary_of(run_of, change=lambda s: None if s.variant == "gmp" else trained(s)))
    assert cut(lines_with(text, "0.9 gmp")[0]) == ["0.9 gmp", "missing [1]"]
    assert "--resume" in text


def test_without_the_reference_there_is_no_distance_to_it(run_of):
    text = render(summary_of(run_of, change=failing(variant="dense")))
    assert cut(lines_with(text, "0.9 gmp")[0]) == ["0.9 gmp", "82.00 % ±1.00", "0.900 0.890 0.880", "12.5 s"]


def test_of_one_seed_no_deviation_is_told(run_of):
    text = render(summary_of(run_of, cells(seeds=(5,))))
    assert "threads 1, 1 seed" in text
    assert "±" not in "".join(lines_with(text, "0.9 "))


@pytest.mark.parametrize("style", ["table", "markdown"])
def test_a_goal_has_a_column_that_says_who_did_not_reach_it(run_of, style):
    def change(s):
        made = trained(s)
        late = s.variant == "static" or (s.variant == "gmp" and s.cell["seed"] == 2)
        return made if late else replace(made, metrics={**made.metrics, "seconds_to_goal": 3.25})

    text = render(summary_of(run_of, cells("time-to-accuracy"), change), style)
    assert "to goal" in text
    told = {
        name: next(line for line in text.splitlines() if f"0.9 {name} " in line) for name in ("static", "gmp", "acdc")
    }
    assert "not reached" in told["static"]
    assert "not reached" in told["gmp"], "a mean over the seeds that reached it would flatter"
    assert "3.25 s" in told["acdc"] and "not reached" not in told["acdc"]
    assert "not reached" not in render(summary_of(run_of), style), "no case without a goal has the column"


def test_a_twin_has_a_column_only_where_a_method_gives_one(run_of):
    def change(s):
        made = trained(s)
        return replace(made, metrics={**made.metrics, "accuracy_dense": 0.9512}) if s.variant == "acdc" else made

    text = render(summary_of(run_of, change=change))
    (head,) = [line for line in text.splitlines() if line.startswith("sparsity, method")]
    assert cut(head)[-1] == "twin"
    assert cut(lines_with(text, "0.9 acdc")[0])[-1] == "95.12 %"
    assert cut(lines_with(text, "0.9 gmp")[0])[-1] == "12.5 s"
    (head,) = [line for line in render(summary_of(run_of)).splitlines() if line.startswith("sparsity, method")]
    assert "twin" not in head


def test_notes_are_of_all_or_of_some(run_of):
    def change(s):
        return replace(trained(s), note="half the images" + ("; printed 9 bytes" if s.variant == "gmp" else ""))

    lines = render(summary_of(run_of, change=change)).splitlines()
    assert "  half the images" in lines
    assert "  gmp: printed 9 bytes" in lines


@pytest.mark.parametrize("kind", KINDS)
def test_every_line_fits(run_of, kind):
    names = ("gmp@regrow=true,begin=0.05,end=0.9", "static", "acdc@warmup=0.25,phase=0.125")

    def change(s):
        if s.variant == "static":
            return replace(s, status="wrong", reason="word " * 60, t_ns=[])
        made = trained(s)
        return replace(
            made, metrics={**made.metrics, "seconds_to_goal": 1234.5, "accuracy_dense": 0.95}, note="x " * 90
        )

    text = render(summary_of(run_of, cells(kind, methods=names), change))
    assert max(map(len, text.splitlines())) <= 100
    for name in names:
        assert f"0.95 {name}" in text


def test_both_kinds_and_kernels_stand_in_one_report(run_of, cells_of):
    planned = [*cells_of(), *cells(), *cells("time-to-accuracy", "race")]
    names = {name for cell in planned for name in cell.variants}
    change = {"accuracy": trained, "time-to-accuracy": trained}
    kinds = {cell.case: cell.kind for cell in planned}
    run = run_of(planned, dict.fromkeys(names, 1e6), change=lambda s: change.get(kinds[s.case], lambda x: x)(s))
    text = render(summarize(run))
    order = [text.index(f"\n{title}") for title in ("KERNEL (ms)", "ACCURACY\n", "TIME-TO-ACCURACY\n", "WHO WINS")]
    assert order == sorted(order)
    assert text.count("accuracy: mean over seeds") == 1, "the legend is told once"


def test_a_report_without_trainings_says_nothing_of_them(run_of):
    for style in ("table", "markdown"):
        assert "mean over seeds" not in render(summarize(run_of()), style)


def test_markdown_has_the_same_rows_in_whole_tables(run_of):
    text = render(summary_of(run_of, change=failing(reason="a | b\nc")), "markdown")
    assert "## accuracy" in text.splitlines()
    results = [line for line in text.splitlines() if line.startswith(("| 0.9", "| dense"))]
    assert len(results) == 7 + 5, "results of all, costs of those that ended"
    assert {line.count("|") - line.count("\\|") for line in results[:7]} == {6}
    assert "- [1] error: a \\| b c" in text
    assert "- most accurate: acdc at 0.9; acdc at 0.95" in text


def test_json_has_scores_and_rankings(run_of):
    data = json.loads(render(summary_of(run_of, change=failing(seeds=(1,))), "json"))
    assert [(s["variant"], s["sparsity"]) for s in data["scores"]][:4] == [
        ("dense", 0.0), ("static", 0.9), ("gmp", 0.9), ("acdc", 0.9),
    ]  # fmt: skip
    gmp = data["scores"][2]
    assert (gmp["seeds"], gmp["solved"], gmp["failures"]) == (3, 2, [["error", "the loss is nan at step 3"]])
    assert gmp["accuracy"]["mean"] == pytest.approx(0.82)
    assert gmp["points"]["mean"] == pytest.approx(-0.14)
    assert gmp["metrics"]["bytes_csr"] == BYTES["bytes_csr"]
    assert [(r["sparsity"], r["best"]) for r in data["rankings"]] == [(0.9, "acdc"), (0.95, "acdc")]


def test_csv_has_a_line_for_every_seed(run_of):
    head, *body = render(summary_of(run_of), "csv").splitlines()
    assert {"seed", "accuracy", "bytes_csr", "forward_ms"} <= set(head.split(","))
    assert len(body) == 21
