"""From rows of trainings to scores: one for every method at every sparsity of a case, over its seeds.

A method is compared with the reference, the same training without pruning, seed by seed.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from sparsebench.runs.records import SCORED, TIMED

if TYPE_CHECKING:
    from sparsebench.runs.summary import Row


Key = tuple[str, str, tuple[float, float], str]  # case, axes, what was asked for, variant


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
    axes: dict[str, Any]  # of the cell, without what was asked for and the seed
    sparsity: float  # that was asked for; 0 for the reference, and where a speedup was asked for
    speedup: float = 0.0  # that was asked for: 1 for the reference; 0 where a sparsity was asked for
    variant: str
    seeds: int  # planned
    solved: int
    failures: tuple[tuple[str, str], ...] = ()  # (status, reason) of the other seeds
    accuracy: Spread | None = None
    points: Spread | None = None  # accuracy less the reference's with the same seed
    metrics: dict[str, float] = {}
    splits_ms: dict[str, float] = {}  # of one step
    perplexity: Spread | None = None  # of text
    by_seed: dict[str, float] = {}  # what ranks: accuracy, and of text the test loss in nats with a minus
    is_rough: bool = False  # other work spoiled its times; what was learnt is what it is
    notes: tuple[str, ...] = ()

    @property
    def target(self) -> tuple[float, float]:
        """What was asked for: sparsity and speedup."""
        return self.sparsity, self.speedup

    @property
    def is_reference(self) -> bool:
        """Whether this is the training without pruning."""
        return _is_reference(self.target)

    @property
    def step_ms(self) -> float | None:
        """Milliseconds of one step, everything in it."""
        return sum(self.splits_ms.values()) if self.splits_ms else None


class Ranking(msgspec.Struct, frozen=True, kw_only=True):
    """Who is best on average at one sparsity of a case; `level` is who is as good or better with some seed.

    The best is the most accurate, and of text who has the lowest test loss. Papers on language models compare by it;
    the share of right next tokens moves only when a guess becomes another one, a loss moves with every weight.
    """

    case: str
    axes: dict[str, Any]
    sparsity: float
    speedup: float = 0.0
    best: str
    level: tuple[str, ...] = ()


def scores_of(rows: Iterable[Row]) -> tuple[Score, ...]:
    """Scores in the order of the plan, the reference of a case first."""
    groups: dict[Key, list[Row]] = {}
    for row in rows:
        if row.kind in SCORED:
            groups.setdefault((row.case, repr(_axes(row)), _target(row), row.variant), []).append(row)
    return tuple(_score(group, _reference(groups, key)) for key, group in groups.items())


def rankings_of(scores: Sequence[Score]) -> tuple[Ranking, ...]:
    """Who is best at every sparsity that methods competed at; whom a seed failed takes no part.

    One method alone is not best of anything, and one seed tells nobody apart: then there is no ranking.
    """
    groups: dict[tuple[str, str, tuple[float, float]], list[Score]] = {}
    for score in scores:
        if not score.is_reference and score.accuracy is not None and score.solved == score.seeds:
            groups.setdefault((score.case, repr(score.axes), score.target), []).append(score)
    found = []
    for group in groups.values():
        if len(group) < 2 or group[0].solved < 2:
            continue
        best = max(group, key=lambda score: statistics.fmean(score.by_seed.values()))
        level = tuple(
            s.variant for s in group if s is not best and any(s.by_seed[k] >= best.by_seed[k] for k in best.by_seed)
        )
        found.append(
            Ranking(
                case=best.case,
                axes=best.axes,
                sparsity=best.sparsity,
                speedup=best.speedup,
                best=best.variant,
                level=level,
            )
        )
    return tuple(found)


def _reference(groups: Mapping[Key, list[Row]], key: Key) -> list[Row]:
    """The rows without pruning of the same case and axes."""
    return next((rows for place, rows in groups.items() if place[:2] == key[:2] and _is_reference(place[2])), [])


def _target(row: Row) -> tuple[float, float]:
    """Sparsity and speedup of a cell; one of them is an axis of it."""
    return float(row.cell.get("sparsity", 0.0)), float(row.cell.get("speedup", 0.0))


def _is_reference(target: tuple[float, float]) -> bool:
    return target[0] == 0 and target[1] <= 1


def _axes(row: Row) -> dict[str, Any]:
    return {k: v for k, v in row.cell.items() if k not in ("sparsity", "speedup", "seed")}


def _score(rows: Sequence[Row], reference: Sequence[Row]) -> Score:
    first = rows[0]
    solved = [row for row in rows if row.status in TIMED and "accuracy" in row.metrics]
    dense = {row.cell.get("seed"): row.metrics["accuracy"] for row in reference if "accuracy" in row.metrics}
    pairs = [(row.metrics["accuracy"], dense[s]) for row in solved if (s := row.cell.get("seed")) in dense]
    is_text = any("perplexity" in row.metrics for row in (*rows, *reference))
    return Score(
        case=first.case,
        kind=first.kind,
        title=first.title,
        axes=_axes(first),
        sparsity=_target(first)[0],
        speedup=_target(first)[1],
        variant=first.variant,
        seeds=len(rows),
        solved=len(solved),
        failures=tuple(dict.fromkeys((row.status, row.reason) for row in rows if row not in solved)),
        accuracy=_spread([row.metrics["accuracy"] for row in solved]),
        points=_spread([mine - other for mine, other in pairs]) if not _is_reference(_target(first)) else None,
        perplexity=_spread([row.metrics["perplexity"] for row in solved if "perplexity" in row.metrics]),
        by_seed={str(row.cell.get("seed")): _worth(row, is_text) for row in solved},
        is_rough=any(row.is_rough for row in solved),
        metrics=_means([row.metrics for row in solved]),
        splits_ms=_means([row.splits_ms for row in solved]),
        notes=tuple(dict.fromkeys(note for row in rows for note in row.notes)),
    )


def _worth(row: Row, is_text: bool) -> float:
    """The higher, the better."""
    return -row.metrics.get("test_loss", math.inf) if is_text else row.metrics["accuracy"]


def _spread(values: Sequence[float]) -> Spread | None:
    if not values:
        return None
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return Spread(statistics.fmean(values), deviation, min(values), max(values))


def _means(tables: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Key -> mean, of the keys that all have: a mean over some seeds would flatter."""
    shared = [key for key in (tables[0] if tables else ()) if all(key in table for table in tables)]
    return {key: statistics.fmean(table[key] for table in tables) for key in shared}
