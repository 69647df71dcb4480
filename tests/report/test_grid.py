"""How wide a table will be is worked out without making it, and right."""

import random

import pytest

from sparsebench.report._grid import _wide, _widths, fit, grid


def table(seed):
    draw = random.Random(seed)

    def text(most):
        return "".join(draw.choice("ab c†.") for _ in range(draw.randint(0, most)))

    columns = draw.randint(1, 6)
    body = [[text(12) for _ in range(draw.randint(1, columns))] for _ in range(draw.randint(1, 5))]
    return [[text(8) or "head" for _ in range(columns)], *body]


@pytest.mark.parametrize("part", range(5))
def test_widths_are_those_of_the_table(part):
    for seed in range(100 * part, 100 * part + 100):
        rows = table(seed)
        assert _wide(_widths(rows)) == max(map(len, grid(rows))), rows


def test_slices_fit_and_lose_no_column():
    rows = [[f"head-{i}" for i in range(30)], [f"cell-{i}" for i in range(30)]]
    lines = fit([rows], width=60)
    assert max(map(len, lines)) <= 60
    seen = [word for line in lines for word in line.split() if word.startswith("cell")]
    assert sorted(set(seen)) == sorted(rows[1])
    assert [seen.count(word) for word in rows[1][1:]] == [1] * 29
