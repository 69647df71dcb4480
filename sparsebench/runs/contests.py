"""Who wins: geometric means of ratios over the cells that all who compete solved, and no others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from sparsebench.runs.records import CellInfo
from sparsebench.runs.stats import geometric_mean

if TYPE_CHECKING:
    from sparsebench.runs.summary import Row

AXES = ("pass", "threads", "sparsity")  # cells are averaged over cases, never over one of these
# A variant that solved fewer of a group's cells than this share would shrink the common ground of all:
# it is left out of the means and named, its rows stay in the tables.
SHARE = 0.5


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A variant's geometric-mean ratio to the baseline (above 1: faster), with its range over blocks."""

    variant: str
    ratio: float
    low: float | None = None
    high: float | None = None


class Contest(msgspec.Struct, frozen=True, kw_only=True):
    """The cells of one kind, group and `axes` (pass, threads, sparsity), and who stands how, best first."""

    kind: str
    op: str  # "" where a group has several
    group: str  # what the suite calls them; the op where it says nothing
    axes: dict[str, Any]
    baseline: str
    cells: int  # solved by all who stand
    cells_planned: int
    blocks: int  # that all those cells have in common
    standings: tuple[Standing, ...]
    level: tuple[str, ...] = ()  # variants that are as good as the winner in some block
    left_out: dict[str, str] = {}  # variant -> why it does not stand

    @property
    def winner(self) -> str | None:
        """The variant with the best geometric mean."""
        return self.standings[0].variant if self.standings else None


def contests_of(cells: Iterable[tuple[CellInfo, Sequence[Row]]]) -> tuple[Contest, ...]:
    """One contest for every (kind, group, pass, threads, sparsity, baseline) of the cells, in their order."""
    groups: dict[tuple[str, ...], list[tuple[CellInfo, Mapping[str, Row]]]] = {}
    for info, rows in cells:
        axes = (str(info.cell.get(axis)) for axis in AXES)
        place = info.kind, info.group or info.op, info.baseline, *axes
        groups.setdefault(place, []).append((info, {row.variant: row for row in rows}))
    return tuple(_contest(*zip(*group, strict=True)) for group in groups.values())


def _contest(group: Sequence[CellInfo], cells: Sequence[Mapping[str, Row]]) -> Contest:
    """How the variants of one group stand over the cells that all of them solved."""
    solved, left_out = _who_stands(cells)
    common = [cell for cell in cells if all(_solved(cell.get(v)) for v in solved)] if solved else []
    if solved and not common:
        left_out |= dict.fromkeys(solved, "no cell that all variants solved")
    blocks = _common_blocks(common, solved)
    means = {v: [geometric_mean([cell[v].block_ratios[b] for cell in common]) for b in blocks] for v in solved}
    standings = [_standing(v, [cell[v] for cell in common], means[v]) for v in solved] if common else []
    standings.sort(key=lambda standing: -standing.ratio)
    first = group[0]
    return Contest(
        kind=first.kind,
        op=first.op if all(info.op == first.op for info in group) else "",
        group=first.group or first.op,
        axes={axis: first.cell[axis] for axis in AXES if axis in first.cell},
        baseline=first.baseline,
        cells=len(common),
        cells_planned=len(cells),
        blocks=len(blocks),
        standings=tuple(standings),
        level=_level([standing.variant for standing in standings], means),
        left_out=left_out,
    )


def _common_blocks(cells: Sequence[Mapping[str, Row]], variants: Sequence[str]) -> list[int]:
    """The blocks in which every one of the variants has a ratio in every one of the cells."""
    held = [set(cell[variant].block_ratios) for cell in cells for variant in variants]
    return sorted(set.intersection(*held)) if held else []


def _who_stands(cells: Sequence[Mapping[str, Row]]) -> tuple[list[str], dict[str, str]]:
    """The variants to compare, and why the others are not."""
    standing: list[str] = []
    left_out: dict[str, str] = {}
    for variant in dict.fromkeys(v for cell in cells for v in cell):
        here = [cell[variant] for cell in cells if variant in cell]
        solved = sum(map(_solved, here))
        if not here[0].same_class:
            left_out[variant] = f"another precision class ({here[0].precision})"
        elif not solved or solved < SHARE * len(cells):
            why = ", ".join(dict.fromkeys(row.status for row in here if row.status != "ok")) or "no ratio"
            left_out[variant] = f"{why} in {len(cells) - solved} of {len(cells)}"
        else:
            standing.append(variant)
    return standing, left_out


def _solved(row: Row | None) -> bool:
    return row is not None and row.ratio is not None and not row.is_rough


def _standing(variant: str, rows: Sequence[Row], means: Sequence[float]) -> Standing:
    """The mean over cells of the median over blocks; its range is that of the means within single blocks."""
    ratio = geometric_mean([row.ratio for row in rows if row.ratio is not None])
    if len(means) < 2:
        return Standing(variant=variant, ratio=ratio)
    return Standing(variant=variant, ratio=ratio, low=min(means), high=max(means))


def _level(variants: Sequence[str], means: Mapping[str, Sequence[float]]) -> tuple[str, ...]:
    """Who cannot be told from the first: as good in some block, for blocks drift and drift is common; or one block."""
    if not variants:
        return ()
    best, *others = variants
    few = len(means[best]) < 2
    return tuple(v for v in others if few or any(mine >= its for mine, its in zip(means[v], means[best], strict=True)))
