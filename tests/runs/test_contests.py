"""Geometric means are taken over common ground only."""

import msgspec
import pytest

from sparsebench.runs.summary import summarize

replace = msgspec.structs.replace
FOUR = ("a", "b", "c", "d")


def standing(contest, variant):
    return next(s for s in contest.standings if s.variant == variant)


def contest_at(run, sparsity=0.9):
    return next(c for c in summarize(run).contests if c.axes["sparsity"] == sparsity)


def test_one_contest_for_every_pass_and_sparsity(run_of, cells_of):
    run = run_of(cells_of(cases=FOUR, passes=("forward", "both")))
    contests = summarize(run).contests
    assert [(c.axes["pass"], c.axes["sparsity"], c.cells) for c in contests] == [
        ("forward", 0.8, 4), ("forward", 0.9, 4), ("both", 0.8, 4), ("both", 0.9, 4),
    ]  # fmt: skip
    best = contests[0]
    assert [s.variant for s in best.standings] == ["cython", "torch-dense", "torch-csr"]
    assert best.winner == "cython"
    assert best.level == ()
    assert best.standings[0].ratio == pytest.approx(2, rel=0.03)
    assert best.standings[0].low < best.standings[0].ratio < best.standings[0].high


def test_only_cells_that_all_solved_count(run_of, cells_of):
    """cython fails where it would have been slow; a mean over what each solved would praise it for that."""

    def change(s):
        if s.case == "a" and s.variant == "cython":
            return replace(s, status="error", reason="r", t_ns=[])
        return replace(s, t_ns=[t / 8 for t in s.t_ns]) if s.case == "a" and s.variant == "torch-csr" else s

    run = run_of(cells_of(cases=FOUR), change=change)
    contest = contest_at(run)
    assert (contest.cells, contest.cells_planned) == (3, 4)
    assert standing(contest, "torch-csr").ratio == pytest.approx(0.5, rel=0.05)
    over_its_own = [r.ratio for r in summarize(run).rows if r.variant == "torch-csr" and r.cell["sparsity"] == 0.9]
    assert sum(over_its_own) / 4 > 1  # the naive mean


def test_who_solved_little_does_not_shrink_the_ground_of_others(run_of, cells_of):
    def change(s):
        hit = s.variant == "torch-csr" and s.case != "a"
        return replace(s, status="unsupported", reason="r", t_ns=[]) if hit else s

    contest = contest_at(run_of(cells_of(cases=FOUR), change=change))
    assert contest.cells == 4
    assert contest.left_out == {"torch-csr": "unsupported in 3 of 4"}


def test_ops_have_means_of_their_own(run_of, cells_of):
    convolutions = [replace(c, op="conv2d") for c in cells_of(cases=("c",))]
    contests = summarize(run_of(cells_of() + convolutions)).contests
    assert [c.op for c in contests] == ["linear", "linear", "conv2d", "conv2d"]


def test_who_is_faster_in_every_block_is_told_apart_though_blocks_drift(run_of):
    """Blocks in which the baseline itself was slow or fast move both ratios: their ranges touch, their order stays."""

    def change(s):
        factor = 1.3 if s.variant == "torch-dense" and s.block % 2 else 1.0
        return replace(s, t_ns=[t * factor for t in s.t_ns])

    times = {"torch-dense": 2e6, "torch-csr": 1.15e6, "cython": 1e6}
    contest = contest_at(run_of(times=times, change=change, block_sd=0.005))
    first, second, *_ = contest.standings
    assert (first.variant, second.variant, contest.level) == ("cython", "torch-csr", ())
    assert second.high > first.low, "ranges alone would not tell"


def test_variants_that_are_as_good_in_some_block_are_not_told_apart(run_of):
    times = {"torch-dense": 2e6, "torch-csr": 1.005e6, "cython": 1e6}
    contest = contest_at(run_of(times=times))
    assert len(contest.level) == 1
    assert {contest.winner, *contest.level} == {"torch-csr", "cython"}


def test_one_block_has_no_range_and_tells_nobody_apart(run_of, cells_of):
    contest = contest_at(run_of(cells_of(blocks=1)))
    assert contest.standings[0].low is None
    assert contest.level == ("torch-dense", "torch-csr")


def test_nothing_in_common(run_of, cells_of):
    def change(s):
        hit = (s.case in "ab") == (s.variant == "cython") and s.variant != "torch-dense"
        return replace(s, status="error", reason="r", t_ns=[]) if hit else s

    contest = contest_at(run_of(cells_of(cases=FOUR), change=change))
    assert contest.cells == 0
    assert contest.winner is None
    assert contest.left_out["cython"] == "no cell that all variants solved"


def test_nothing_solved_at_all(run_of):
    contest = contest_at(run_of(change=lambda s: None))
    assert contest.standings == ()
    assert contest.left_out["cython"] == "missing in 1 of 1"


def test_a_suite_may_name_its_own_groups(run_of, cells_of):
    wide = [replace(c, group="wide") for c in cells_of(cases=("a", "b"))]
    contests = summarize(run_of(wide + cells_of(cases=("c",)))).contests
    assert [(c.group, c.op, c.cells) for c in contests if c.axes["sparsity"] == 0.9] == [
        ("wide", "linear", 2),
        ("linear", "linear", 1),
    ]


def test_a_group_may_hold_several_ops(run_of, cells_of):
    mixed = [replace(c, group="all", op=op) for op, case in (("linear", "a"), ("conv2d", "b")) for c in
             cells_of(cases=(case,))]  # fmt: skip
    assert {(c.group, c.op, c.cells) for c in summarize(run_of(mixed)).contests} == {("all", "", 2)}
