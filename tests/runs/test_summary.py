"""Every planned row is there, with the worst that happened to it, and a time if nothing did, or only noise."""

import itertools

import msgspec
import pytest

from sparsebench.runs.summary import summarize

replace = msgspec.structs.replace


def row_of(summary, variant, sparsity=0.9, case="linear-1024"):
    (row,) = (r for r in summary.rows if (r.case, r.variant, r.cell["sparsity"]) == (case, variant, sparsity))
    return row


def test_a_clean_run(run_of):
    summary = summarize(run_of())
    assert summary.counts() == {"ok": 6}
    row = row_of(summary, "cython")
    assert row.ratio == pytest.approx(2, rel=0.05)
    assert row.ratio_low <= row.ratio <= row.ratio_high
    assert row.ms_low <= row.ms <= row.ms_high
    assert row.useful_gflops == pytest.approx(row.dense_gflops * 0.1)
    assert row.dense_gflops == pytest.approx(2 * 1024 * 1024 * 128 / (row.ms * 1e6))
    assert (row.blocks, row.blocks_planned, row.rounds, row.is_best) == (5, 5, 60, True)
    baseline = row_of(summary, "torch-dense")
    assert (baseline.ratio, baseline.ratio_low, baseline.ratio_high) == (1, 1, 1)
    assert baseline.is_baseline
    assert not baseline.is_best


def test_drift_of_the_machine_is_not_in_the_ratio(run_of):
    row = row_of(summarize(run_of(drift=0.5)), "cython")
    assert row.ms_high / row.ms_low > 2
    assert row.ratio_high / row.ratio_low < 1.15


@pytest.mark.parametrize("status", ["wrong", "crash", "timeout", "oom", "error", "skipped", "unsupported"])
def test_one_bad_block_takes_the_time_of_the_row(run_of, status):
    def change(s):
        hit = s.variant == "cython" and s.block == 3
        return replace(s, status=status, reason="it broke", t_ns=[]) if hit else s

    row = row_of(summarize(run_of(change=change)), "cython")
    assert (row.status, row.reason) == (status, "it broke (in 1 of 5 blocks)")
    assert row.ms is row.ms_low is row.ratio is row.useful_gflops is None
    assert not row.is_best


def test_the_worst_of_several_is_said(run_of):
    order = ["wrong", "crash", "timeout", "oom", "error", "skipped", "ok"]
    for worst, other in itertools.pairwise(order):

        def change(s, pair=(other, worst)):
            return replace(s, status=pair[s.block % 2], reason="r") if s.variant == "cython" else s

        assert row_of(summarize(run_of(change=change)), "cython").status == worst


def spoil(blocks):
    return lambda s: replace(s, status="contaminated") if s.block in blocks else s


def test_contaminated_only_if_no_block_is_left(run_of):
    row = row_of(summarize(run_of(change=spoil({0}))), "cython")
    assert (row.status, row.blocks, row.blocks_contaminated, row.notes) == ("ok", 4, 1, ())
    row = row_of(summarize(run_of(change=spoil({0, 1, 2}))), "cython")
    assert (row.status, row.is_rough) == ("ok", False)
    assert row.notes == ("lost 3 of 5 blocks to other work: take the time as a hint",)
    row = row_of(summarize(run_of(change=spoil(range(5)))), "cython")
    assert (row.status, row.is_rough, row.blocks, row.blocks_contaminated) == ("contaminated", True, 5, 5)


@pytest.mark.parametrize(
    "change", [spoil(range(5)), lambda s: replace(s, dropped=list(range(12)))], ids=["blocks", "rounds"]
)
def test_a_rough_row_is_shown_and_never_wins(run_of, change):
    """Its times come from what was spoiled, so they are there to look at, and for nothing else."""
    summary = summarize(run_of(change=change))
    row = row_of(summary, "cython")
    assert row.is_rough
    assert row.ms == pytest.approx(1, rel=0.5)
    assert row.ratio == pytest.approx(2, rel=0.1)
    assert row.notes == ()  # the status says it
    assert not any(r.is_best for r in summary.rows)
    assert all(c.winner is None and c.left_out["cython"] == "contaminated in 1 of 1" for c in summary.contests)


def test_a_rough_row_does_not_win_among_good_ones(run_of):
    summary = summarize(run_of(change=lambda s: spoil(range(5))(s) if s.variant == "cython" else s))
    assert row_of(summary, "cython").ratio > 1.5
    assert row_of(summary, "torch-dense").is_best
    assert {c.winner for c in summary.contests} == {"torch-dense"}


def test_rounds_that_were_dropped_stay_out_of_a_rough_time(run_of):
    """All but the first two rounds of every block were hit, and took ten times as long."""

    def change(s):
        return replace(s, status="contaminated", dropped=list(range(2, 12)), t_ns=[*s.t_ns[:2], *[1e7] * 10])

    assert row_of(summarize(run_of(change=change)), "cython").ms == pytest.approx(1, rel=0.5)


def test_contaminated_without_any_time_is_not_rough(run_of):
    row = row_of(summarize(run_of(change=lambda s: replace(s, status="contaminated", t_ns=[]))), "cython")
    assert (row.status, row.is_rough, row.ms, row.ratio) == ("contaminated", False, None, None)


def test_what_was_planned_and_not_measured_is_missing(run_of):
    summary = summarize(run_of(change=lambda s: s if s.cell["sparsity"] == 0.8 else None))
    assert summary.counts() == {"ok": 3, "missing": 3}
    assert "--resume" in row_of(summary, "cython").reason
    partly = summarize(run_of(change=lambda s: s if s.block < 2 else None))
    assert row_of(partly, "cython").notes == ("2 of 5 blocks measured; --resume completes the run",)


def test_dropped_rounds_are_counted(run_of):
    row = row_of(summarize(run_of(change=lambda s: replace(s, dropped=[1, 4]))), "cython")
    assert (row.rounds, row.rounds_dropped) == (60, 10)


def test_without_a_baseline_there_is_a_time_and_no_ratio(run_of):
    def change(s):
        return replace(s, status="error", reason="r", t_ns=[]) if s.variant == "torch-dense" else s

    row = row_of(summarize(run_of(change=change)), "cython")
    assert row.ms
    assert row.ratio is None
    assert row.is_best


def test_another_precision_class_cannot_win(run_of):
    summary = summarize(run_of(precision={"cython": "bfloat16"}))
    row = row_of(summary, "cython")
    assert (row.precision, row.same_class, row.is_best) == ("bfloat16", False, False)
    assert row_of(summary, "torch-dense").is_best
    assert all("cython" in c.left_out for c in summary.contests)


def test_notes_splits_metrics_and_checks(run_of):
    def change(s):
        more = {"splits_ns": {"forward": 1e6 + s.block}, "metrics": {"accuracy": 0.9 + s.block / 100}}
        return replace(s, note="channels-last", rss_peak=s.block, verify={"max_rel_err": s.block / 1e9}, **more)

    row = row_of(summarize(run_of(change=change)), "cython")
    assert row.notes == ("channels-last",)
    assert row.splits_ms == {"forward": 1.000002}
    assert row.metrics == {"accuracy": pytest.approx(0.92)}
    assert (row.rss_peak, row.max_rel_err) == (4, 4e-9)


def test_a_note_of_several_parts_is_told_part_by_part(run_of):
    def change(s):
        return replace(s, note="channels-last; printed 9 bytes" if s.block else "channels-last")

    assert row_of(summarize(run_of(change=change)), "cython").notes == ("channels-last", "printed 9 bytes")


def test_a_rough_row_keeps_its_scores(run_of):
    metrics = {"accuracy": 0.9, "training_seconds": 3.0}
    run = run_of(change=lambda s: replace(s, status="contaminated", metrics=metrics))
    assert row_of(summarize(run), "cython").metrics == metrics


def test_samples_of_no_planned_cell_are_said(run_of):
    run = run_of()
    info = replace(run.info, cells=run.info.cells[:1])
    summary = summarize(type(run)(info, run.samples, ("p",), run.path))
    assert len(summary.rows) == 3
    assert summary.problems[0] == "p"
    assert "sparsity=0.9" in summary.problems[1]


def test_the_best_peer_of_a_cell_is_one(run_of):
    times = {"torch-dense": 2e6, "torch-csr": 4e6, "cython": 1e6, "mkl": 3e6}
    rows = summarize(run_of(times=times, cells=None, peers=["torch-csr", "mkl"])).rows
    assert {row.peer for row in rows} == {"torch-csr"}, "mkl is in no cell"
    assert row_of(summarize(run_of(peers=["torch-csr"])), "cython").peer_ratio == pytest.approx(4, rel=0.05)
    assert row_of(summarize(run_of(peers=["torch-csr"])), "torch-dense").peer_ratio == pytest.approx(2, rel=0.05)
    assert row_of(summarize(run_of(peers=["torch-csr"])), "torch-csr").peer_ratio == 1
    best = summarize(run_of(peers=["torch-csr", "cython"]))
    assert row_of(best, "torch-csr").peer == "cython"
    assert row_of(best, "torch-csr").peer_ratio == pytest.approx(0.25, rel=0.05)


def test_without_a_peer_that_works_there_is_no_ratio_to_it(run_of):
    assert {row.peer_ratio for row in summarize(run_of()).rows} == {None}
    broken = run_of(
        peers=["torch-csr"],
        change=lambda s: replace(s, status="wrong", reason="r", t_ns=[]) if s.variant == "torch-csr" else s,
    )
    assert {(row.peer, row.peer_ratio) for row in summarize(broken).rows} == {("", None)}
    rough = summarize(run_of(peers=["torch-csr"], change=spoil(range(5))))
    assert {(row.peer, row.peer_ratio) for row in rough.rows} == {("", None)}


def test_drift_is_not_in_the_ratio_to_the_best_peer(run_of):
    row = row_of(summarize(run_of(drift=0.5, peers=["torch-csr"])), "cython")
    assert row.peer_ratio == pytest.approx(4, rel=0.05)
