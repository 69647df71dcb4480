"""Numbers are written one way everywhere."""

import math
import random

import pytest

from sparsebench.report import _numbers as n


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.012345, "0.0123"), (1.2345, "1.23"), (9.996, "10.0"), (12.345, "12.3"), (123.45, "123"), (1234.5, "1234"),
     (0, "0"), (-1.5, "-1.50"), (0.0009996, "0.00100"), (math.inf, "inf"), (1e-12, "0.000000000")],
)  # fmt: skip
def test_three_digits(value, text):
    assert n.digits(value) == text


def test_the_short_way_writes_what_the_long_way_writes():
    """The long way: rounded, then cut at the places that the rounded number has."""
    draw = random.Random(0)
    for _ in range(5000):
        value, count = 10 ** draw.uniform(-3.2, 2.99), draw.choice((3, 4))
        rounded = float(f"{value:.{count - 1}e}")
        places = max(0, count - 1 - math.floor(math.log10(rounded)))
        assert n.digits(value, count) == f"{rounded:.{places}f}"


def test_units_and_gaps():
    assert n.ms(1.2345) == "1.23 ms"
    assert n.ratio(2.314) == "2.31x"
    assert (n.ratio(0.487), n.ratio(12.34), n.ratio(0.0123)) == ("0.49x", "12.3x", "0.0123x")
    assert n.ms(None) == n.ratio(None) == n.percent(None) == n.span(None, 1.0) == n.span(2.0, 2.0) == ""
    assert n.span(0.7431, 1.15) == "0.743-1.15"
    assert n.ratio_span(0.4791, 0.5) == "0.48-0.50"
    assert (n.percent(1.2), n.percent(0.5)) == ("+20.0 %", "-50.0 %")
    assert n.percent(0.9999) == "+0.0 %"
    assert n.percent_span(1.012, None) == "+1.2 .. ? %"
    assert n.percent_span(None, None) == ""
    assert n.metric("val_accuracy", 0.9712) == "97.1 %"
    assert n.metric("loss", 0.31234) == "0.3123"
    assert n.metric("steps", 38.0) == "38"
    assert n.mebibytes(3 * 2**20) == "3.00 MiB"
    assert [n.plain(v) for v in (0.9, "both", 3, [3, 3])] == ["0.9", "both", "3", "3x3"]
