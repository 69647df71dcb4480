"""What a machine allows: the peak where a product does much with each byte, else what its memory feeds."""

import msgspec
import pytest

from sparsebench.runs.records import Ceilings, Level
from sparsebench.runs.roofline import ceilings_of, roof_of
from sparsebench.runs.summary import summarize

replace = msgspec.structs.replace
LEVELS = tuple(
    Level(name=name, capacity=capacity, gb_s=rate)
    for name, capacity, rate in (("L1", 32_000, 200.0), ("L2", 500_000, 80.0), ("memory", 0, 20.0))
)
ONE = Ceilings(threads=1, isa="avx2", gflops=100.0, levels=LEVELS)
TWO = replace(ONE, threads=2, gflops=190.0)
HOST = {"fingerprint": {"cpu": "AMD EPYC 7713"}, "ceilings": msgspec.to_builtins([ONE, TWO])}


def cell(cells_of, *, size, flop, products=1):
    (info,) = cells_of((0.9,))
    return replace(info, least_bytes=float(size), useful_flop=float(flop), products=products)


def test_much_work_for_each_byte_is_bound_by_the_peak(cells_of):
    roof = roof_of(cell(cells_of, size=1e6, flop=1e9), (ONE, TWO))
    assert (roof.gflops, roof.bound) == (100.0, "FMA")


@pytest.mark.parametrize(
    ("size", "bound", "gflops"), [(30_000, "L1", 20.0), (400_000, "L2", 8.0), (10_000_000, "memory", 2.0)]
)
def test_little_work_is_bound_by_the_level_that_holds_it(cells_of, size, bound, gflops):
    """A tenth of an operation for each byte."""
    roof = roof_of(cell(cells_of, size=size, flop=size / 10), (ONE,))
    assert (roof.bound, roof.gflops) == (bound, pytest.approx(gflops))


def test_three_products_stream_their_bytes_three_times(cells_of):
    once = roof_of(cell(cells_of, size=10_000_000, flop=1e6), (ONE,))
    thrice = roof_of(cell(cells_of, size=10_000_000, flop=3e6, products=3), (ONE,))
    assert once == thrice


def test_the_ceilings_are_those_of_as_many_threads(cells_of):
    info = cell(cells_of, size=1e6, flop=1e9)
    two = replace(info, cell={**info.cell, "threads": 2})
    assert roof_of(two, (ONE, TWO)).gflops == 190.0
    assert roof_of(two, (ONE,)) is None


def test_what_has_no_known_work_has_no_roof(cells_of):
    info = cell(cells_of, size=1e6, flop=1e9)
    for unknown in (replace(info, least_bytes=0.0), replace(info, useful_flop=0.0), replace(info, products=0)):
        assert roof_of(unknown, (ONE,)) is None


def test_a_run_keeps_its_ceilings_and_an_old_one_has_none(run_of):
    assert ceilings_of(run_of(host=HOST).info) == (ONE, TWO)
    assert ceilings_of(run_of().info) == ()


def test_a_row_says_its_share(run_of, cells_of):
    cells = [replace(c, least_bytes=1e6, products=1) for c in cells_of()]
    rows = summarize(run_of(cells, host=HOST)).rows
    for row in rows:
        assert (row.ceiling_gflops, row.ceiling_bound) == (100.0, "FMA")
        assert row.ceiling_share == pytest.approx(row.useful_gflops / 100)
    assert all(row.ceiling_share is None for row in summarize(run_of(cells)).rows)


def test_another_precision_class_has_other_ceilings(run_of, cells_of):
    cells = [replace(c, least_bytes=1e6, products=1) for c in cells_of()]
    rows = summarize(run_of(cells, host=HOST, precision={"cython": "bfloat16"})).rows
    assert {row.variant for row in rows if row.ceiling_share is None} == {"cython"}


def test_a_row_without_a_time_has_a_ceiling_and_no_share(run_of, cells_of):
    cells = [replace(c, least_bytes=1e6, products=1) for c in cells_of()]
    run = run_of(cells, host=HOST, change=lambda s: replace(s, status="error", reason="r", t_ns=[]))
    assert {(row.ceiling_gflops, row.ceiling_share) for row in summarize(run).rows} == {(100.0, None)}
