"""Where a variant begins to win: between which sparsities the ratio crosses 1, and what is said where it does not."""

import math

import msgspec
import pytest

from sparsebench.runs.break_even import crossing
from sparsebench.runs.summary import summarize

replace = msgspec.structs.replace
SWEEP = (0.5, 0.7, 0.9)


def test_the_logarithm_is_interpolated():
    assert crossing([(0.5, 0.5), (0.7, 0.5), (0.9, 2.0)]) == (pytest.approx(0.8), False)
    assert crossing([(0.5, 0.8), (0.9, 1.25**3)]) == (pytest.approx(0.6), False)


def test_a_straight_line_of_logarithms_is_found_again():
    points = [(s, math.exp(3 * (s - 0.73))) for s in (0.5, 0.6, 0.7, 0.8, 0.9)]
    assert crossing(points) == (pytest.approx(0.73), False)


def test_the_plain_ratio_is_not_what_is_interpolated():
    """Linear in the ratio the crossing of (0.5, 0.5) and (0.9, 2) would be 0.63."""
    sparsity, _ = crossing([(0.5, 0.5), (0.9, 2.0)])
    assert sparsity == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("ratios", "told"), [((1.1, 2, 3), (None, True)), ((0.2, 0.5, 0.9), (None, False)), ((0.2, 2, 1), (None, False))]
)
def test_a_crossing_outside_of_what_was_measured(ratios, told):
    assert crossing(list(zip(SWEEP, ratios, strict=True))) == told


def test_of_several_crossings_the_last_counts():
    assert crossing([(0.5, 2.0), (0.7, 0.5), (0.9, 2.0)]) == (pytest.approx(0.8), False)
    assert crossing([(0.5, 0.5), (0.7, 1.0), (0.9, 2.0)]) == (pytest.approx(0.7), False)


def faster_with_sparsity(s):
    """torch-csr crosses at 0.8, cython is always faster, both by much more than the noise."""
    factor = {0.5: 4, 0.7: 2, 0.9: 0.5} if s.variant == "torch-csr" else dict.fromkeys(SWEEP, 0.2)
    return s if s.variant == "torch-dense" else replace(s, t_ns=[t * factor[s.cell["sparsity"]] for t in s.t_ns])


TIMES = dict.fromkeys(("torch-dense", "torch-csr", "cython"), 1e6)


def test_a_case_and_the_means_of_a_group_have_one(run_of, cells_of):
    run = run_of(cells_of(SWEEP, cases=("a", "b")), TIMES, change=faster_with_sparsity)
    found = summarize(run).break_evens
    assert [(e.case, e.variant) for e in found] == [
        ("a", "torch-csr"), ("a", "cython"), ("b", "torch-csr"), ("b", "cython"), ("", "cython"), ("", "torch-csr"),
    ]  # fmt: skip
    assert [e.text() for e in found if e.variant == "cython"] == ["< 0.5"] * 3
    assert [e.sparsity for e in found if e.variant == "torch-csr"] == [pytest.approx(0.8, abs=0.01)] * 3
    assert {e.group for e in found if not e.case} == {"linear"}
    assert found[0].axes == {"pass": "forward", "threads": 1}
    assert found[0].text() == "0.80"


def test_who_never_wins_is_said_so(run_of, cells_of):
    run = run_of(cells_of(SWEEP), {**TIMES, "cython": 9e6})
    assert {e.text() for e in summarize(run).break_evens if e.variant == "cython"} == {"none up to 0.9"}


def test_two_sparsities_are_too_few(run_of, cells_of):
    assert summarize(run_of(cells_of((0.5, 0.9)))).break_evens == ()

    def lose(s):
        hit = s.variant == "cython" and s.cell["sparsity"] == 0.7
        return replace(s, status="error", reason="r", t_ns=[]) if hit else s

    assert {e.variant for e in summarize(run_of(cells_of(SWEEP), change=lose)).break_evens} == {"torch-csr"}


def test_rough_rows_and_other_classes_have_none(run_of, cells_of):
    rough = run_of(cells_of(SWEEP), change=lambda s: replace(s, status="contaminated"))
    assert summarize(rough).break_evens == ()
    other = summarize(run_of(cells_of(SWEEP), precision={"cython": "bfloat16"}))
    assert {e.variant for e in other.break_evens} == {"torch-csr"}
