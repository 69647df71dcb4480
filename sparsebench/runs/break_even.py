"""From which sparsity on a variant is faster than the baseline: where the log ratio crosses 0, by interpolation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from sparsebench.runs.contests import Contest
    from sparsebench.runs.summary import Row

LEAST_POINTS = 3  # sparsities with a ratio; of fewer a line says nothing about what lies between them
AXIS = "sparsity"


class BreakEven(msgspec.Struct, frozen=True, kw_only=True):
    """Where one variant begins to win, in one case (or in a contest's means) at fixed other axes.

    `sparsity` is None if the crossing lies outside of what was measured: below `lowest` if `always` (it wins at every
    sparsity), else above `highest` (it does not win at the highest).
    """

    case: str  # "" for the means of a group
    kind: str
    group: str
    axes: dict[str, Any]  # of the cells, without the sparsity
    variant: str
    sparsity: float | None
    always: bool
    lowest: float
    highest: float

    def text(self) -> str:
        """ "0.73", "< 0.5" or "none up to 0.99"."""
        if self.sparsity is not None:
            return f"{self.sparsity:.2f}"
        return f"< {self.lowest:g}" if self.always else f"none up to {self.highest:g}"


def crossing(points: Sequence[tuple[float, float]]) -> tuple[float | None, bool]:
    """(sparsity from which on the ratio stays above 1, whether it always is) of ascending (sparsity, ratio) points.

    Between two points log(ratio) is taken to be linear in the sparsity. Of several crossings the last counts.
    """
    at_most = [i for i, (_, ratio) in enumerate(points) if ratio <= 1]
    if not at_most:
        return None, True
    last = at_most[-1]
    if last == len(points) - 1:
        return None, False
    (low, below), (high, above) = points[last], points[last + 1]
    share = -math.log(below) / (math.log(above) - math.log(below))
    return low + share * (high - low), False


def break_evens_of_cases(rows: Iterable[Row]) -> tuple[BreakEven, ...]:
    """One for every (case, other axes, variant) with enough sparsities, in the order of the rows."""
    found: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        if row.ratio is not None and not row.is_baseline and row.same_class and not row.is_rough and AXIS in row.cell:
            found.setdefault((row.case, repr(_others(row.cell)), row.variant), []).append(row)
    made = []
    for (case, _, variant), group in found.items():
        points = [(float(row.cell[AXIS]), row.ratio or 0.0) for row in group]
        made.append(_break_even(points, case, group[0].kind, "", _others(group[0].cell), variant))
    return tuple(each for each in made if each is not None)


def break_evens_of_means(contests: Iterable[Contest]) -> tuple[BreakEven, ...]:
    """The same of geometric means: for every (kind, group, other axes, variant) that stands at enough sparsities."""
    found: dict[tuple[str, str, str, str], tuple[Contest, list[tuple[float, float]]]] = {}
    for contest in contests:
        for standing in contest.standings:
            if AXIS in contest.axes and standing.variant != contest.baseline:
                key = contest.kind, contest.group, repr(_others(contest.axes)), standing.variant
                point = float(contest.axes[AXIS]), standing.ratio
                found.setdefault(key, (contest, []))[1].append(point)
    made = [
        _break_even(points, "", kind, group, _others(contest.axes), variant)
        for (kind, group, _, variant), (contest, points) in found.items()
    ]
    return tuple(each for each in made if each is not None)


def _break_even(
    points: list[tuple[float, float]], case: str, kind: str, group: str, axes: dict[str, Any], variant: str
) -> BreakEven | None:
    if len({sparsity for sparsity, _ in points}) < LEAST_POINTS:
        return None
    points = sorted(points)
    sparsity, always = crossing(points)
    return BreakEven(
        case=case, kind=kind, group=group, axes=axes, variant=variant, sparsity=sparsity, always=always,
        lowest=points[0][0], highest=points[-1][0],
    )  # fmt: skip


def _others(cell: Mapping[str, Any]) -> dict[str, Any]:
    return {axis: value for axis, value in cell.items() if axis != AXIS}
