"""What -k means: words, and what binds them."""

from __future__ import annotations

from dataclasses import replace
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
    ("expression", "values", "meant"),
    [
        ("sparsity=0.9", [0.9, 0.95, 0.99], [0.9]),
        ("sparsity=.90", [0.9, 0.95, 0.99], [0.9]),
        ("not sparsity=0.9", [0.9, 0.95, 0.99], [0.95, 0.99]),
        ("threads=1", [1, 16], [1]),
        ("threads=16", [1, 16], [16]),
        ("pass=forward", ["forward", "both"], ["forward"]),
        ("pass=for", ["forward", "both"], []),
        ("kernel_size=3x3", [[1, 1], [3, 3], [13, 3]], [[3, 3]]),
        ("bias=true", [True, False], [True]),
        ("lr=1e-3", [0.001, 0.01], [0.001]),
        ("momentum=1", [0.0, 1.0], [1.0]),
        ("method=gmp", ["gmp", "gmp@regrow=true"], ["gmp"]),
        ("method=gmp@regrow=true", ["gmp", "gmp@regrow=true"], ["gmp@regrow=true"]),
        ("sparsity=lots", [0.9], []),
        ("sparsity=", [0.9], []),
    ],
)
def test_an_axis_has_the_whole_value_or_has_it_not(
    cells: list[Cell], expression: str, values: list[Any], meant: list[Any]
) -> None:
    axis = expression.removeprefix("not ").partition("=")[0]
    made = [replace(cells[0], axes={axis: value}) for value in values]
    assert [cell.axes[axis] for cell in made if matches(expression, cell)] == meant
    assert not matches(f"other{axis}={values[0]}", made[0])


def test_a_word_alone_is_any_part_of_a_value(cells: list[Cell]) -> None:
    made = [replace(cells[0], axes={"sparsity": value}) for value in (0.8, 0.9, 0.95)]
    assert [matches("0.9", cell) for cell in made] == [False, True, True]


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
