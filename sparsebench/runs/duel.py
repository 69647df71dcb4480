"""Two variants of one run, cell by cell: what `ab` asks after every block, and what its report is made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from sparsebench.runs.blocks import Rows, log_ratios, times_of
from sparsebench.runs.records import TIMED, CellInfo, Sample, Timing, cell_key
from sparsebench.runs.stats import median
from sparsebench.runs.store import Run
from sparsebench.runs.summary import FAILED, status_of
from sparsebench.runs.verdicts import LOOKS, Judgement, judge_pairs, settled

EXIT_CODES = (("wrong", 3), ("failed", 4), ("missing", 1), ("slower", 1), ("inconclusive", 5))  # gravest first
FAIL_ON = frozenset({"wrong", "failed", "missing", "slower"})
BARRED = frozenset({"unsupported", "skipped"})  # it was never asked


class Duel(msgspec.Struct, frozen=True, kw_only=True):
    """B against A in one cell. `verdict` is that of the judgement, or what kept the two from being compared."""

    case: str
    title: str
    cell: dict[str, Any]
    a: str
    b: str
    verdict: str  # faster, slower, same, inconclusive; of B alone: wrong, failed, missing, fixed, new
    reason: str = ""
    a_ms: float | None = None
    b_ms: float | None = None
    judgement: Judgement | None = None
    blocks_dropped: int = 0  # whole blocks that something else on the machine spoiled
    rounds_dropped: int = 0
    rounds: int = 0


def duels_of(run: Run) -> tuple[Duel, ...]:
    """The first variant of each cell against each of the others, in the order of the run's plan."""
    precision = run.info.precision
    return tuple(duel(info, b, run.rows, precision) for info in run.info.cells for b in info.variants[1:])


def duel(info: CellInfo, b: str, rows: Rows[Sample], precision: Mapping[str, str]) -> Duel:
    """The first variant of a cell against `b`; `precision` are the variants' classes."""
    a, key = info.variants[0], cell_key(info.case, info.cell)
    sides = rows.get((key, a), {}), rows.get((key, b), {})
    values, ns = pairs(*sides)
    both = [sample for side in sides for sample in side.values()]
    verdict, reason = _standing(a, b, sides)
    judged = _judged(values, info.margin, ns) if values and not verdict else None
    kinds = [precision.get(variant, "float32") for variant in (a, b)]
    told = "" if kinds[0] == kinds[1] else f"A computes in {kinds[0]} and B in {kinds[1]}: not the same work"
    times = [time_of(side) / 1e6 or None for side in sides]
    return Duel(
        case=info.case, title=info.title, cell=info.cell, a=a, b=b, judgement=judged,
        reason="; ".join(filter(None, (reason or _why(judged), told))),
        verdict=verdict or (judged.call if judged else "inconclusive"),
        a_ms=times[0], b_ms=times[1],
        blocks_dropped=len({s.block for s in both if s.status == "contaminated"}),
        rounds_dropped=sum(len(s.dropped) for s in sides[0].values()),
        rounds=sum(len(s.t_ns) for s in sides[0].values()),
    )  # fmt: skip


def _judged(values: Sequence[float], margin: float, ns: Sequence[float]) -> Judgement:
    """What the looks came to; before they come to anything, what is known so far, as no verdict."""
    judged = settled(values, margin, ns)
    return judged or msgspec.structs.replace(judge_pairs(values, margin, median(ns)), call="inconclusive")


def pairs(a: Mapping[int, Timing], b: Mapping[int, Timing]) -> tuple[list[float], list[float]]:
    """(log(time of B / time of A), time of A) for every block in which both have a time, in their order."""
    logs, times = log_ratios(a, b), times_of(a)
    return [-value for value in logs.values()], [times[block] for block in logs]


def time_of(side: Mapping[int, Timing]) -> float:
    """Nanoseconds, the median over blocks; 0 if there are none."""
    times = times_of(side)
    return median(times.values()) if times else 0.0


def worst(duels: Iterable[Duel], fail_on: frozenset[str]) -> int:
    """The exit code of the gravest verdict that `fail_on` names; 0 if there is none."""
    seen = {each.verdict for each in duels} & fail_on
    return next((code for verdict, code in EXIT_CODES if verdict in seen), 0)


def _standing(a: str, b: str, sides: Sequence[Mapping[int, Sample]]) -> tuple[str, str]:
    """(verdict, reason) where there is nothing to time one against the other; nothing if both have times.

    What B lacks counts against it; what A lacked, B has mended or brought.
    """
    (was, why), (now, reason) = map(status_of, sides)
    told = f"{b}: {now}" + (f": {reason}" if reason else "")
    if now == "wrong" or now in FAILED:
        return ("wrong" if now == "wrong" else "failed"), told
    lacked = was == "wrong" or was in FAILED or was in BARRED
    if now in BARRED:
        return ("inconclusive" if lacked else "missing"), told
    if now not in TIMED:
        return "inconclusive", told
    if lacked:
        return ("new" if was in BARRED else "fixed"), f"{a}: {was}" + (f": {why}" if why else "")
    return "", ""


def _why(judged: Judgement | None) -> str:
    if judged is None:
        return "no block has a time of both"
    if judged.blocks < LOOKS[0]:
        return f"{judged.blocks} good blocks: a verdict needs {LOOKS[0]}"
    if judged.call != "inconclusive":
        return ""
    if judged.blocks not in LOOKS:
        following = next(count for count in LOOKS if count > judged.blocks)  # the last one ends in a judgement
        return f"{judged.blocks} good blocks: not decided yet, and the next look is at {following}"
    most = ", the most: a wider margin or a quieter machine decides it" if judged.blocks >= LOOKS[-1] else ""
    return f"the interval reaches across the margin of {judged.margin:.1%} after {judged.blocks} blocks{most}"
