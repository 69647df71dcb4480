"""What -k means: words, and what binds them."""

from __future__ import annotations

from typing import Any

import pytest

from sparsebench.errors import UsageError
from sparsebench.harness.cells import Cell, expand
from sparsebench.harness.expression import matches
from sparsebench.harness.suite import parse_suite

SUITE = """
schema = 1
[suite]
name = "some"
threads = [1, 2]
[[kernel]]
name = "linear-wide"
tags = ["transformer"]
op = "linear"
out_features = 8
in_features = 6
sparsity = [0.9, 0.99]
[[kernel]]
name = "conv-3x3"
op = "conv2d"
out_features = 8
in_features = 6
kernel_size = 3
height = 5
width = 5
sparsity = [0.9, 0.99]
"""


@pytest.fixture(scope="module")
def cells() -> list[Cell]:
    return expand(parse_suite(SUITE, "some.toml"))


AXES = """
schema = 1
[suite]
name = "axes"
threads = [1, 16]
[[kernel]]
name = "conv"
op = "conv2d"
out_features = 8
in_features = 6
kernel_size = [[1, 1], [3, 3], [13, 3]]
padding = 1
height = 13
width = 13
sparsity = [0.9, 0.95, 0.99]
pass = ["forward", "both"]
bias = [true, false]
[[training]]
name = "mlp"
model = "mlp"
dataset = "digits"
lr = [0.001, 0.01]
momentum = [0.0, 1.0]
method = ["magnitude", "magnitude@layers=true"]
"""


def chosen(cells: list[Cell], expression: str) -> set[tuple[Any, ...]]:
    return {(c.case.name[:4], c.axes["sparsity"], c.threads) for c in cells if matches(expression, c)}


@pytest.mark.parametrize(
    ("expression", "count"),
    [
        ("", 8),
        ("conv", 4),
        ("transformer", 4),
        ("not conv", 4),
        ("not not conv", 4),
        ("threads=2", 4),
        ("conv and 0.99", 2),
        ("conv and not 0.99 and threads=1", 1),
        ("conv or linear and 0.99", 6),
        ("(conv or linear) and 0.99", 4),
        ("not (conv or 0.99)", 2),
        ("((conv))", 4),
        ("(conv and (0.99 or threads=1)) or linear-wide and threads=2", 5),
        ("nothing", 0),
    ],
)
def test_what_is_meant(cells: list[Cell], expression: str, count: int) -> None:
    assert len(chosen(cells, expression)) == count


@pytest.mark.parametrize(
    ("expression", "axis", "values"),
    [
        ("sparsity=0.9 and conv", "sparsity", {0.9}),
        ("sparsity=.90 and conv", "sparsity", {0.9}),
        ("not sparsity=0.9 and conv", "sparsity", {0.95, 0.99}),
        ("threads=1", "threads", {1}),
        ("threads=16", "threads", {16}),
        ("pass=forward", "pass", {"forward"}),
        ("pass=for", "pass", set()),
        ("kernel_size=3x3", "kernel_size", {(3, 3)}),
        ("bias=true", "bias", {True}),
        ("lr=1e-3", "lr", {0.001}),
        ("momentum=1", "momentum", {1.0}),
        ("method=magnitude", "method", {"magnitude"}),
        ("method=magnitude@layers=true", "method", {"magnitude@layers=true"}),
        ("sparsity=lots", "sparsity", set()),
        ("sparsity=", "sparsity", set()),
        ("parsity=0.9", "sparsity", set()),
        ("0.9 and conv", "sparsity", {0.9, 0.95, 0.99}),
    ],
)
def test_an_axis_has_the_whole_value_or_has_it_not(expression: str, axis: str, values: set[Any]) -> None:
    found = [cell.axes[axis] for cell in expand(parse_suite(AXES, "axes.toml")) if matches(expression, cell)]
    assert {tuple(value) if isinstance(value, list) else value for value in found} == values


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("(conv", "a ) is missing"),
        ("conv)", "')' is too much"),
        ("conv and", "it ends too early"),
        ("and conv", "a word is missing before 'and'"),
        ("conv or or linear", "a word is missing before 'or'"),
        ("()", "a word is missing before ')'"),
        ("conv (linear)", "'(' is too much"),
    ],
)
def test_what_cannot_be_read_is_refused(cells: list[Cell], expression: str, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        matches(expression, cells[0])
    assert said in str(refused.value)
