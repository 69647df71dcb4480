"""What a block says about one variant and about a pair."""

import math

import pytest

from sparsebench.runs.blocks import block_ns, by_row, kept, log_ratio, log_ratios, loosened, timeless_rounds
from sparsebench.runs.records import Sample


def sample(t_ns, block=0, variant="v", status="ok", dropped=(), session=0):
    return Sample(case="c", cell={"a": 1}, variant=variant, block=block, status=status, t_ns=list(t_ns),
                  dropped=list(dropped), session=session)  # fmt: skip


def test_dropped_rounds_do_not_count():
    assert block_ns(sample([1.0, 2.0, 90.0, 3.0], dropped=[2])) == 2.0
    assert block_ns(sample([1.0, 2.0], dropped=[0, 1])) is None
    assert block_ns(sample([1.0, 2.0], status="contaminated")) is None


def test_rounds_without_a_time_are_found_and_never_used_however_loosely():
    odd = sample([1.0, 0.0, 2.0, -3.0], dropped=[0, 1, 2, 3], status="contaminated")
    assert timeless_rounds(odd) == [1, 3]
    assert kept(loosened(odd)) == [1.0, 2.0]


def test_a_spoiled_block_can_be_loosened():
    spoiled = sample([1.0, 2.0, 9.0], status="contaminated", dropped=[2])
    assert kept(loosened(spoiled)) == [1.0, 2.0]
    assert kept(loosened(sample([1.0, 9.0], dropped=[0, 1]))) == [1.0, 9.0]  # no other rounds
    assert kept(loosened(sample([1.0], status="wrong"))) == []
    good = sample([1.0, 2.0], dropped=[1])
    assert loosened(good) == good


def test_a_pair_is_compared_round_by_round():
    # both drift upwards alike; in one round the variant alone was hit
    base, variant = sample([10.0, 20.0, 40.0]), sample([5.0, 40.0, 20.0])
    assert log_ratio(base, variant) == pytest.approx(math.log(2))
    assert math.log(block_ns(base) / block_ns(variant)) == pytest.approx(0)  # what medians alone would say


def test_rounds_dropped_by_either_are_left_out_of_the_pair():
    base, variant = sample([10.0, 10.0, 10.0], dropped=[0]), sample([1.0, 5.0, 99.0], dropped=[2])
    assert log_ratio(base, variant) == pytest.approx(math.log(2))


@pytest.mark.parametrize("variant", [sample([5.0, 6.0, 7.0], session=1), sample([6.0, 6.0])])
def test_rounds_of_different_sessions_or_counts_do_not_pair(variant):
    assert log_ratio(sample([10.0, 12.0, 30.0]), variant) == pytest.approx(math.log(12 / 6))


def test_only_blocks_with_both_have_a_value():
    base = {0: sample([2.0]), 1: sample([2.0]), 2: sample([2.0], status="contaminated")}
    variant = {0: sample([1.0]), 2: sample([1.0]), 3: sample([1.0])}
    assert log_ratios(base, variant) == {0: pytest.approx(math.log(2))}


def test_rows_are_told_apart_by_cell_and_variant():
    rows = by_row([sample([1.0]), sample([2.0], block=1), sample([3.0]), sample([4.0], variant="w")])
    assert set(rows) == {("c[a=1]", "v"), ("c[a=1]", "w")}
    assert [s.t_ns for s in rows["c[a=1]", "v"].values()] == [[1.0], [2.0]]
