"""From rows of trainings to scores: one for every method at every sparsity of a case, over its seeds.

A method is compared with the reference, the same training without pruning, seed by seed.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from sparsebench.runs.records import SCORED, TIMED

if TYPE_CHECKING:
    from sparsebench.runs.summary import Row


class Spread(msgspec.Struct, frozen=True):
    """A mean over seeds, with its sample standard deviation (None of one seed) and its range."""

    mean: float
    deviation: float | None
    low: float
    high: float


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """One method at one sparsity in one case. Numbers are means over the seeds that ended well."""

    case: str
    kind: str
    title: str
    axes: dict[str, Any]  # of the cell, without sparsity and seed
    sparsity: float  # that was asked for; 0 for the reference
    variant: str
    seeds: int  # planned
    solved: int
    failures: tuple[tuple[str, str], ...] = ()  # (status, reason) of the other seeds
    accuracy: Spread | None = None
    points: Spread | None = None  # accuracy less the reference's with the same seed
    metrics: dict[str, float] = {}
    splits_ms: dict[str, float] = {}  # of one step
    by_seed: dict[str, float] = {}  # accuracy
    is_rough: bool = False  # other work spoiled its times; what was learnt is what it is
    notes: tuple[str, ...] = ()

    @property
    def step_ms(self) -> float | None:
        """Milliseconds of one step, everything in it."""
        return sum(self.splits_ms.values()) if self.splits_ms else None


class Ranking(msgspec.Struct, frozen=True, kw_only=True):
    """Who is most accurate on average at one sparsity of a case; `level` is who is as good or better with some seed."""

    case: str
    axes: dict[str, Any]
    sparsity: float
    best: str
    level: tuple[str, ...] = ()


def scores_of(rows: Iterable[Row]) -> tuple[Score, ...]:
    """Scores in the order of the plan, the reference of a case first."""
    groups: dict[tuple[str, str, float, str], list[Row]] = {}
    for row in rows:
        if row.kind in SCORED:
            axes = {k: v for k, v in row.cell.items() if k not in ("sparsity", "seed")}
            groups.setdefault((row.case, repr(axes), row.cell["sparsity"], row.variant), []).append(row)
    return tuple(_score(group, _reference(groups, key)) for key, group in groups.items())


def rankings_of(scores: Sequence[Score]) -> tuple[Ranking, ...]:
    """Who is most accurate at every sparsity that methods competed at; whom a seed failed takes no part.

    One method alone is not best of anything, and one seed tells nobody apart: then there is no ranking.
    """
    groups: dict[tuple[str, str, float], list[Score]] = {}
    for score in scores:
        if score.sparsity > 0 and score.accuracy is not None and score.solved == score.seeds:
            groups.setdefault((score.case, repr(score.axes), score.sparsity), []).append(score)
    found = []
    for group in groups.values():
        if len(group) < 2 or group[0].solved < 2:
            continue
        best = max(group, key=lambda score: score.accuracy.mean if score.accuracy else 0.0)
        level = tuple(
            s.variant for s in group if s is not best and any(s.by_seed[k] >= best.by_seed[k] for k in best.by_seed)
        )
        found.append(Ranking(case=best.case, axes=best.axes, sparsity=best.sparsity, best=best.variant, level=level))
    return tuple(found)


def _reference(groups: Mapping[tuple[str, str, float, str], list[Row]], key: tuple[str, str, float, str]) -> list[Row]:
    """The rows without pruning of the same case and axes."""
    wanted = (*key[:2], 0)
    return next((rows for place, rows in groups.items() if place[:3] == wanted), [])


def _score(rows: Sequence[Row], reference: Sequence[Row]) -> Score:
    first = rows[0]
    solved = [row for row in rows if row.status in TIMED and "accuracy" in row.metrics]
    dense = {row.cell.get("seed"): row.metrics["accuracy"] for row in reference if "accuracy" in row.metrics}
    pairs = [(row.metrics["accuracy"], dense[s]) for row in solved if (s := row.cell.get("seed")) in dense]
    return Score(
        case=first.case,
        kind=first.kind,
        title=first.title,
        axes={k: v for k, v in first.cell.items() if k not in ("sparsity", "seed")},
        sparsity=float(first.cell["sparsity"]),
        variant=first.variant,
        seeds=len(rows),
        solved=len(solved),
        failures=tuple(dict.fromkeys((row.status, row.reason) for row in rows if row not in solved)),
        accuracy=_spread([row.metrics["accuracy"] for row in solved]),
        points=_spread([mine - other for mine, other in pairs]) if first.cell["sparsity"] else None,
        by_seed={str(row.cell.get("seed")): row.metrics["accuracy"] for row in solved},
        is_rough=any(row.is_rough for row in solved),
        metrics=_means([row.metrics for row in solved]),
        splits_ms=_means([row.splits_ms for row in solved]),
        notes=tuple(dict.fromkeys(note for row in rows for note in row.notes)),
    )


def _spread(values: Sequence[float]) -> Spread | None:
    if not values:
        return None
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return Spread(statistics.fmean(values), deviation, min(values), max(values))


def _means(tables: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Key -> mean, of the keys that all have: a mean over some seeds would flatter."""
    shared = [key for key in (tables[0] if tables else ()) if all(key in table for table in tables)]
    return {key: statistics.fmean(table[key] for table in tables) for key in shared}
