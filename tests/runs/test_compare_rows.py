"""Rows of two stored runs: cells and names that came or went, what failed or was mended, and which exit code wins."""

import dataclasses

import msgspec
import pytest

from sparsebench.errors import RunError, UsageError
from sparsebench.runs.compare import FAIL_ON, Change, Comparison, compare_runs
from sparsebench.runs.sides import digest, renamed

replace = msgspec.structs.replace
BASE = {"torch-dense": 2e6, "torch-csr": 4e6, "cython": 1e6}
OTHER_HOST = {"fingerprint": {"cpu": "Xeon", "cores_allowed": 2, "libraries": {"torch": "2.12"}}}
SLOWED = BASE | {"cython": 1.5e6}


def verdicts(comparison, variant="cython"):
    return [row.verdict for row in comparison.rows if row.variant == variant]


def test_different_suites_and_cells_of_one_run_are_said(run_of, cells_of):
    base = run_of(cells_of(sparsities=(0.7, 0.8, 0.9)))
    head = run_of(cells_of(sparsities=(0.9, 0.99)), suite={"name": "suite-mine"}, seed=1)
    comparison = compare_runs(base, head)
    assert {row.cell["sparsity"] for row in comparison.rows} == {0.9}, "cells of another suite are not missing"
    assert comparison.notes == (
        "the runs are of different suites, suite-cpu and suite-mine: only cells that both have are compared",
        "2 of 3 cells of base are not in the other run",
        "1 of 2 cells of head are not in the other run",
    )


def test_suites_without_a_common_cell_are_refused(run_of, cells_of):
    head = run_of(cells_of(sparsities=(0.99,)), suite={"name": "suite-mine"}, seed=1)
    with pytest.raises(
        RunError, match=r"is a run of suite-cpu and .* one of suite-mine, and they have no cell in common"
    ):
        compare_runs(run_of(), head)


def test_a_run_of_ab_is_refused(run_of):
    with pytest.raises(RunError, match="a run of `ab`, judged already; see `sparsebench report runs/run-1`"):
        compare_runs(run_of(), run_of(seed=1, options={"ab": ["cython", "cpp"]}))


def test_a_run_against_itself_and_one_that_is_not_finished_are_said(run_of):
    assert compare_runs(run_of(), run_of()).notes == ("base and head are the same run",)
    torn = run_of(seed=1, change=lambda s: s if s.block < 2 or s.variant != "cython" else None)
    told = "2 of 6 rows lack blocks that were planned; `sparsebench run --resume runs/run-1` completes it"
    assert compare_runs(run_of(), torn).notes == (f"head: not finished: {told}",)
    assert "nothing was measured" in compare_runs(run_of(), run_of(seed=1, change=lambda s: None)).notes[-1]
    failed = run_of(seed=1, change=lambda s: replace(s, status="crash", t_ns=[]) if s.variant == "cython" else s)
    first = dataclasses.replace(failed, samples=[s for s in failed.samples if s.variant != "cython" or s.block == 0])
    assert compare_runs(run_of(), first).notes == (), "what failed is not asked again"


def as_named(cells, names):
    return [replace(c, variants=[names.get(v, v) for v in c.variants]) for c in cells]


def test_a_renamed_backend_is_guessed_and_can_be_told(run_of, cells_of):
    names = {"cython": "cython2"}
    head = run_of(as_named(cells_of(), names), BASE | {"cython2": 1.5e6}, seed=4)
    comparison = compare_runs(run_of(), head)
    assert comparison.notes == (
        "cython is only in base and cython2 only in head, in the same 2 cells: if it was renamed, "
        "add --rename cython=cython2",
    )
    assert (verdicts(comparison), verdicts(comparison, "cython2")) == (["missing"] * 2, ["new"] * 2)
    told = compare_runs(renamed(digest(run_of()), names), head)
    assert told.notes == ()
    assert verdicts(told, "cython2") == ["slower", "slower"]
    assert verdicts(told) == []


def test_two_that_may_have_been_renamed_are_not_guessed(run_of, cells_of):
    names = {"cython": "a", "torch-csr": "b"}
    head = run_of(as_named(cells_of(), names), BASE | {"a": 1e6, "b": 4e6})
    assert not any("renamed" in note for note in compare_runs(run_of(), head).notes)


def test_a_renamed_baseline_is_still_the_anchor(run_of):
    old = renamed(digest(run_of()), {"torch-dense": "dense"})
    assert {cell.baseline for cell in old.info.cells} == {"dense"}
    assert all("dense" in found for found in old.sides.values())


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            {"cython": "torch-csr"},
            "--rename cython=torch-csr: runs/run-0 has a variant torch-csr already; leave it out",
        ),
        ({"cython": "x", "torch-csr": "x"}, "--rename torch-csr=x: cython is renamed to x as well"),
        ({"cython": "torch-csr", "torch-csr": "torch-dense"}, "--rename torch-csr=torch-dense: runs/run-0 has"),
    ],
)
def test_two_never_come_to_have_one_name(run_of, names, said):
    with pytest.raises(UsageError) as refused:
        renamed(digest(run_of()), names)
    assert str(refused.value).startswith(said)


def test_two_can_swap_their_names_and_one_can_take_what_another_leaves(run_of):
    run = digest(run_of())
    swapped = renamed(run, {"cython": "torch-csr", "torch-csr": "cython"})
    assert swapped.info.cells[0].variants == ["torch-dense", "cython", "torch-csr"]
    for key, found in run.sides.items():
        assert swapped.sides[key]["cython"] is found["torch-csr"]
        assert swapped.sides[key]["torch-csr"] is found["cython"]
    passed_on = renamed(run, {"cython": "torch-csr", "torch-csr": "csr"})
    assert passed_on.info.cells[0].variants == ["torch-dense", "csr", "torch-csr"]


def more_samples(run, count, **changes):
    """The run with samples of its first one's kind that its plan does not know; `{}` in a text is their number."""
    first = run.samples[0]
    added = [
        replace(first, **{k: v.format(i) if isinstance(v, str) else v for k, v in changes.items()})
        for i in range(count)
    ]
    return dataclasses.replace(run, samples=(*run.samples, *added))


def test_samples_that_no_plan_knows_are_said(run_of):
    assert compare_runs(run_of(), run_of(seed=1)).notes == ()
    odd = more_samples(more_samples(run_of(seed=1), 1, case="gone"), 1, variant="stranger")
    cell = "[pass=forward,sparsity=0.8,threads=1]"
    assert compare_runs(run_of(), odd).notes == (
        f"head: gone{cell}: samples of a cell that run.json does not plan, left out",
        f"head: linear-1024{cell}: samples of stranger, which run.json does not plan there, left out",
    )


def test_of_many_samples_that_no_plan_knows_five_of_a_kind_are_named(run_of):
    odd = more_samples(more_samples(run_of(), 7, case="gone-{}"), 6, variant="stranger-{}")
    problems = digest(odd).problems
    assert len(problems) == 12
    assert problems[4].startswith("gone-4")
    assert problems[5] == "samples of 2 more cells that run.json does not plan, left out"
    assert "stranger-4" in problems[10]
    assert problems[11] == "samples of 1 more row that run.json does not plan, left out"


def ended(status, variant="cython"):
    def change(s):
        timed = status in ("ok", "contaminated")
        return s if s.variant != variant else replace(s, status=status, reason="r", t_ns=s.t_ns if timed else [])

    return change


@pytest.mark.parametrize(
    ("old", "new", "verdict", "code"),
    [
        ("ok", "wrong", "wrong", 3), ("ok", "crash", "failed", 4), ("ok", "error", "failed", 4),
        ("ok", "skipped", "missing", 1), ("ok", "contaminated", "inconclusive", 0), ("wrong", "wrong", "unchanged", 0),
        ("wrong", "ok", "fixed", 0), ("timeout", "ok", "fixed", 0), ("skipped", "ok", "new", 0),
        ("skipped", "wrong", "wrong", 3), ("skipped", "oom", "failed", 4), ("skipped", "unsupported", "unchanged", 0),
        ("contaminated", "ok", "inconclusive", 0), ("contaminated", "wrong", "wrong", 3),
        ("contaminated", "contaminated", "inconclusive", 0),
        ("wrong", "crash", "failed", 4),
    ],
)  # fmt: skip
def test_what_a_change_of_status_means(run_of, old, new, verdict, code):
    comparison = compare_runs(run_of(change=ended(old)), run_of(change=ended(new)))
    assert set(verdicts(comparison)) == {verdict}
    assert comparison.exit_code() == code


@pytest.mark.parametrize(
    ("new", "verdict", "code"), [("wrong", "wrong", 3), ("crash", "failed", 4), ("skipped", "missing", 1)]
)
def test_what_is_wrong_is_so_on_any_host_and_in_any_version(run_of, cells_of, new, verdict, code):
    """Only times need the same machine and the same case."""
    elsewhere = compare_runs(run_of(), run_of(host=OTHER_HOST, change=ended(new)))
    assert set(verdicts(elsewhere)) == {verdict}
    assert set(verdicts(elsewhere, "torch-csr")) == {"not judged"}
    assert elsewhere.exit_code() == code
    changed = compare_runs(run_of(), run_of([replace(c, version="v2") for c in cells_of()], change=ended(new)))
    assert set(verdicts(changed)) == {verdict}
    assert set(verdicts(changed, "torch-csr")) == {"not judged"}
    assert changed.exit_code() == code
    reason = next(r.reason for r in changed.rows if r.variant == "cython")
    assert reason.startswith(f"ok -> {new}: r; the case itself changed (version v1 -> v2; ")


def test_a_gone_row_is_missing_on_any_host(run_of, cells_of):
    gone = compare_runs(run_of(), run_of(cells_of(sparsities=(0.8,)), host=OTHER_HOST))
    assert verdicts(gone) == ["not judged", "missing"]
    assert gone.exit_code() == 1


def test_a_row_or_cell_that_is_gone_is_missing(run_of, cells_of):
    fewer = run_of(cells_of(sparsities=(0.8,), variants=("torch-dense", "torch-csr")))
    gone = compare_runs(run_of(), fewer)
    assert verdicts(gone) == ["missing", "missing"]
    assert verdicts(gone, "torch-csr") == ["inconclusive", "missing"]
    assert verdicts(compare_runs(fewer, run_of())) == ["new", "new"]
    assert gone.exit_code({"slower"}) == 0


def test_nothing_in_common_is_said(run_of, cells_of):
    comparison = compare_runs(run_of(), run_of(cells_of(cases=("other",))))
    assert comparison.notes[-1] == "the two runs have no (cell, variant) in common"


def test_a_failed_baseline_leaves_nothing_to_judge_by(run_of):
    comparison = compare_runs(run_of(), run_of(times=SLOWED, change=ended("error", "torch-dense")))
    row = next(r for r in comparison.rows if r.variant == "cython")
    assert (row.verdict, row.change) == ("inconclusive", None)
    assert "no block of head" in row.reason


def test_which_exit_code_wins(run_of):
    info = run_of().info

    def of(*found):
        rows = [Change(case="c", title="", cell={}, variant="v", verdict=v) for v in found]
        return Comparison(base=info, head=info, base_path="", head_path="", rows=tuple(rows))

    assert of("slower", "failed", "wrong", "inconclusive").exit_code() == 3
    assert of("slower", "failed").exit_code() == 4
    assert of("slower", "inconclusive").exit_code({*FAIL_ON, "inconclusive"}) == 1
    assert of("same", "inconclusive").exit_code() == 0
    assert of("same", "inconclusive").exit_code({"inconclusive"}) == 5
    assert of("slower", "wrong").exit_code({"slower"}) == 1
    assert of().exit_code() == 0
    assert of("slower", "wrong").worst() == "wrong"
    assert of("same").worst() is None


def test_another_precision_class_is_not_judged(run_of, cells_of):
    """It is not the same work: a kernel that went to bfloat16 has not become faster at what it did."""
    base, head = (run_of(precision={"cython": kind, "torch-csr": "float32"}) for kind in ("float32", "bfloat16"))
    rows = {row.variant: row for row in compare_runs(base, head).rows}
    assert rows["cython"].verdict == "not judged"
    assert rows["cython"].reason == "another precision class (float32 -> bfloat16)"
    assert rows["torch-csr"].verdict != "not judged"
    forced = {row.variant: row for row in compare_runs(base, head, force=True).rows}
    assert "forced: another precision class" in forced["cython"].reason
    was = renamed(digest(head), {"cython": "old", "torch-csr": "cython"})
    assert was.info.precision == {"old": "bfloat16", "cython": "float32"}
