"""Scores are means over seeds, compared with the reference seed by seed; what failed is counted and named."""

import statistics

import msgspec
import pytest

from sparsebench.runs.records import CellInfo
from sparsebench.runs.scores import rankings_of, scores_of
from sparsebench.runs.summary import Row, summarize

DENSE = {0: 0.90, 1: 0.94, 2: 0.98}


def row(variant, accuracy, seed=0, sparsity=0.9, status="ok", reason="", case="digits", kind="accuracy", **more):
    metrics = {} if accuracy is None else {"accuracy": accuracy, **more.pop("metrics", {})}
    axes = {"seed": seed, "sparsity": sparsity, "threads": 1, **more.pop("axes", {})}
    return Row(case=case, kind=kind, title="mlp", cell=axes, variant=variant, status=status, reason=reason,
               metrics=metrics, **more)  # fmt: skip


def over_seeds(variant, accuracies, sparsity=0.9, **more):
    return [row(variant, accuracy, seed, sparsity, **more) for seed, accuracy in accuracies.items()]


def dense(**more):
    return over_seeds("dense", DENSE, sparsity=0.0, **more)


def failed(variant, seed, status="error", reason="the loss is nan", **more):
    return row(variant, None, seed, status=status, reason=reason, **more)


def score(rows, variant="gmp", sparsity=0.9, **axes):
    (found,) = (
        s
        for s in scores_of(rows)
        if (s.variant, s.sparsity) == (variant, sparsity) and all(s.axes[k] == v for k, v in axes.items())
    )
    return found


def test_mean_deviation_and_range_are_over_seeds():
    made = score(over_seeds("gmp", {0: 0.80, 1: 0.86, 2: 0.95}))
    assert made.accuracy.mean == pytest.approx(0.87)
    assert made.accuracy.deviation == pytest.approx(statistics.stdev([0.80, 0.86, 0.95]))
    assert (made.accuracy.low, made.accuracy.high) == (0.80, 0.95)
    assert (made.seeds, made.solved, made.failures) == (3, 3, ())


def test_of_one_seed_there_is_no_deviation():
    made = score(over_seeds("gmp", {4: 0.8})).accuracy
    assert (made.mean, made.deviation, made.low, made.high) == (0.8, None, 0.8, 0.8)


def test_there_is_one_score_for_every_method_and_sparsity_in_the_order_of_the_plan():
    rows = [*dense(), *over_seeds("gmp", DENSE), *over_seeds("acdc", DENSE), *over_seeds("gmp", DENSE, 0.95)]
    found = [(s.variant, s.sparsity, s.seeds) for s in scores_of(rows)]
    assert found == [("dense", 0.0, 3), ("gmp", 0.9, 3), ("acdc", 0.9, 3), ("gmp", 0.95, 3)]
    assert {tuple(s.axes) for s in scores_of(rows)} == {("threads",)}, "without seed and sparsity"


def test_rows_of_other_kinds_have_no_score():
    assert scores_of([row("cpp", 0.9, kind="training"), row("cpp", 0.9, kind="inference")]) == ()
    assert len(scores_of([row("cpp", 0.9, kind="time-to-accuracy")])) == 1


def test_points_are_the_distance_to_dense_with_the_same_seed():
    made = score([*dense(), *over_seeds("gmp", {seed: value - 0.02 for seed, value in DENSE.items()})])
    assert made.points.mean == pytest.approx(-0.02)
    assert made.points.deviation == pytest.approx(0, abs=1e-12), "the spread over seeds is in both"
    assert made.accuracy.deviation == pytest.approx(0.04)


def test_points_are_of_the_seeds_that_both_solved_and_no_difference_of_means():
    """The twin: with the worst seed lost, the difference of the means would say that pruning made it better."""
    rows = [*dense(), failed("gmp", 0), row("gmp", 0.93, 1), row("gmp", 0.97, 2)]
    made = score(rows)
    assert made.points.mean == pytest.approx(-0.01)
    unpaired = made.accuracy.mean - score(rows, "dense", 0.0).accuracy.mean
    assert unpaired == pytest.approx(+0.01)
    turned = score([*dense(), *over_seeds("gmp", {2: 0.93, 1: 0.97}), failed("gmp", 0)])
    assert turned.points.mean == pytest.approx(-0.01)
    assert turned.points.deviation != pytest.approx(made.points.deviation)


def test_a_seed_that_the_reference_lost_is_not_paired():
    rows = [row("dense", 0.9, 0, 0.0), failed("dense", 1, sparsity=0.0), row("gmp", 0.8, 0), row("gmp", 0.2, 1)]
    assert score(rows).points.mean == pytest.approx(-0.1)
    assert score(rows).accuracy.mean == pytest.approx(0.5)


def test_without_a_reference_there_are_no_points_and_the_reference_has_none_of_its_own():
    assert score(over_seeds("gmp", DENSE)).points is None
    assert score([*dense(), *over_seeds("gmp", DENSE)], "dense", 0.0).points is None
    assert score([failed("dense", 0, sparsity=0.0), row("gmp", 0.8)]).points is None


def test_the_reference_is_that_of_the_same_case_and_axes():
    rows = [row("dense", 0.9, sparsity=0.0, axes={"epochs": 1}), row("dense", 0.5, sparsity=0.0, axes={"epochs": 2})]
    rows += [row("dense", 0.1, sparsity=0.0, case="other", axes={"epochs": 1})]
    rows += [row("gmp", 0.4, axes={"epochs": epochs}) for epochs in (1, 2)]
    assert score(rows, epochs=1).points.mean == pytest.approx(-0.5)
    assert score(rows, epochs=2).points.mean == pytest.approx(-0.1)


def test_seeds_that_failed_are_counted_and_every_reason_is_named_once():
    rows = [row("gmp", 0.8, 0), failed("gmp", 1), failed("gmp", 2), failed("gmp", 3, "timeout", "no answer")]
    made = score(rows)
    assert (made.seeds, made.solved) == (4, 1)
    assert made.failures == (("error", "the loss is nan"), ("timeout", "no answer"))
    assert made.accuracy.mean == 0.8
    lost = score([failed("gmp", seed) for seed in range(3)])
    assert (lost.seeds, lost.solved, lost.accuracy, lost.points, lost.metrics) == (3, 0, None, None, {})


def test_a_contaminated_training_is_as_accurate_as_any():
    made = score([row("gmp", 0.8, 0, status="contaminated"), row("gmp", 0.9, 1)])
    assert (made.solved, made.accuracy.mean) == (2, pytest.approx(0.85))


def test_an_accuracy_of_a_row_that_is_wrong_does_not_count():
    made = score([row("gmp", 0.99, 0, status="wrong", reason="export"), row("gmp", 0.5, 1)])
    assert (made.solved, made.accuracy.mean, made.failures) == (1, 0.5, (("wrong", "export"),))


def test_a_metric_is_there_only_if_all_seeds_that_ended_well_have_it():
    reached = {"seconds_to_goal": 2.0, "bytes_csr": 10.0}
    rows = [row("gmp", 0.8, 0, metrics=reached), row("gmp", 0.8, 1, metrics={**reached, "seconds_to_goal": 4.0})]
    assert score([*rows, failed("gmp", 2)]).metrics["seconds_to_goal"] == 3.0
    late = score([*rows, row("gmp", 0.8, 2, metrics={"bytes_csr": 40.0})]).metrics
    assert "seconds_to_goal" not in late, "the mean over those that were fast would flatter"
    assert late["bytes_csr"] == 20.0


def test_a_step_takes_the_sum_of_its_parts():
    rows = [row("gmp", 0.8, seed, splits_ms={"forward": 1.0 + seed, "mask": 0.5}) for seed in (0, 1)]
    assert score(rows).splits_ms == {"forward": 1.5, "mask": 0.5}
    assert score(rows).step_ms == pytest.approx(2.0)
    assert score([row("gmp", 0.8)]).step_ms is None


def test_notes_are_said_once():
    rows = [row("gmp", 0.8, seed, notes=("channels-last", f"printed {seed} bytes")) for seed in (1, 2)]
    assert score(rows).notes == ("channels-last", "printed 1 bytes", "printed 2 bytes")


def ranking(*rows):
    (found,) = rankings_of(scores_of(rows))
    return found


def test_the_best_mean_is_first_and_who_is_as_good_with_some_seed_is_not_told_apart():
    best = over_seeds("gmp", {0: 0.90, 1: 0.96})
    for low, level in ((0.90, ("acdc",)), (0.899, ())):
        made = ranking(*over_seeds("acdc", {0: low, 1: 0.95}), *best, *over_seeds("static", {0: 0.1, 1: 0.2}))
        assert (made.best, made.level, made.sparsity) == ("gmp", level, 0.9)


def test_one_method_or_one_seed_makes_no_ranking():
    assert rankings_of(scores_of(over_seeds("gmp", {0: 0.9, 1: 0.8}))) == ()
    assert rankings_of(scores_of([row("gmp", 0.9), row("acdc", 0.1)])) == ()


def test_of_equal_means_the_first_of_the_plan_is_first_and_the_other_not_told_apart():
    made = ranking(*over_seeds("gmp", {0: 0.8, 1: 0.9}), *over_seeds("acdc", {0: 0.9, 1: 0.8}))
    assert (made.best, made.level) == ("gmp", ("acdc",))


def test_every_sparsity_of_every_case_has_its_own_ranking_and_the_reference_none():
    def both(first, second, **more):
        return [row(name, value, seed, **more) for name, value in (("gmp", first), ("acdc", second)) for seed in (0, 1)]

    rows = [*dense(), *both(0.5, 0.4), *both(0.1, 0.2, sparsity=0.95)]
    rows += [*both(0.2, 0.3, case="other")]
    for seed in (0, 1):
        rows += [row("gmp", 0.2, seed, axes={"epochs": 2}), row("acdc", 0.3, seed, axes={"epochs": 2})]
    found = [(r.case, r.axes.get("epochs"), r.sparsity, r.best) for r in rankings_of(scores_of(rows))]
    assert found == [
        ("digits", None, 0.9, "gmp"), ("digits", None, 0.95, "acdc"), ("other", None, 0.9, "acdc"),
        ("digits", 2, 0.9, "acdc"),
    ]  # fmt: skip
    assert rankings_of(scores_of(dense())) == ()


def test_who_failed_with_a_seed_is_not_ranked():
    """The others' worst seeds are in their means."""
    others = (*over_seeds("acdc", {0: 0.9, 1: 0.6}), *over_seeds("static", {0: 0.1, 1: 0.2}))
    made = ranking(row("gmp", 0.99, 0), failed("gmp", 1), *others)
    assert (made.best, made.level) == ("acdc", ())
    assert rankings_of(scores_of([failed("gmp", 0)])) == ()


def test_a_run_is_summed_up_by_scores_beside_its_rows(run_of):
    cells = [
        CellInfo(case="digits", kind="accuracy", cell={"seed": seed, "sparsity": sparsity, "threads": 1}, version="v",
                 title="mlp", blocks=1, variants=names, baseline="dense")
        for seed in (0, 1)
        for sparsity, names in ((0.0, ["dense"]), (0.9, ["gmp", "acdc"]))
    ]  # fmt: skip

    def change(s):
        accuracy = {"dense": 0.9, "gmp": 0.8, "acdc": 0.85}[s.variant] + 0.01 * s.cell["seed"]
        return msgspec.structs.replace(s, metrics={"accuracy": accuracy}, splits_ns={"forward": 2e6})

    summary = summarize(run_of(cells, {"dense": 1e6, "gmp": 2e6, "acdc": 3e6}, change=change))
    assert [s.variant for s in summary.scores] == ["dense", "gmp", "acdc"]
    assert [s.points and round(s.points.mean, 6) for s in summary.scores] == [None, -0.1, -0.05]
    assert [(r.best, r.level) for r in summary.rankings] == [("acdc", ())]
    assert len(summary.rows) == 6
    assert summary.contests == (), "trainings are not raced"
    assert {s.step_ms for s in summary.scores} == {2.0}
