"""Two stored runs: what got slower, by how much, and how sure that is; times are anchored on the baseline.

The two runs have no blocks in common, and absolute times wander by tens of percent within minutes. So each
variant is first divided by the baseline of its own block (an unchanged piece of other people's code); what
is compared are those ratios. The baseline itself can therefore not be judged.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Literal

import msgspec

from sparsebench.errors import RunError
from sparsebench.runs.differences import (
    fingerprint_differences,
    plan_differences,
    precision_difference,
    version_difference,
)
from sparsebench.runs.records import CellInfo, RunInfo
from sparsebench.runs.sides import Digest, Side, digest
from sparsebench.runs.stats import hodges_lehmann_two, median
from sparsebench.runs.store import Run
from sparsebench.runs.summary import FAILED, MISSING
from sparsebench.runs.verdicts import ALPHA, FLOOR_NS, called, limits_of

Verdict = Literal[
    "wrong", "failed", "missing", "slower", "faster", "inconclusive", "same",
    "fixed", "new", "unchanged", "anchor", "not judged",
]  # fmt: skip
FULL_BLOCKS = 10  # a side, for all verdicts
FEW_BLOCKS = 5  # a side, for `slower` alone, where it cannot be missed
FEW_MARGINS = 3
ADVICE = f"verdicts need {FULL_BLOCKS} good ones a side; run both with more --blocks than that, for some are lost"
EXIT_CODES = (("wrong", 3), ("failed", 4), ("missing", 1), ("slower", 1), ("inconclusive", 5))
FAIL_ON = frozenset({"wrong", "failed", "missing", "slower"})
NOTHING = Side(MISSING, "")  # of a row that one run does not have
ABOUT_TIMES = frozenset({"slower", "faster", "same", "inconclusive"})  # meaningless across hosts and case versions


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One (cell, variant) in both runs. `change` is head time / base time, anchored: 1.2 is 20 % more."""

    case: str
    title: str
    cell: dict[str, Any]
    variant: str
    verdict: Verdict
    reason: str = ""
    base_status: str = MISSING
    head_status: str = MISSING
    base_ms: float | None = None  # not anchored, to look at only
    head_ms: float | None = None
    change: float | None = None
    low: float | None = None  # of the 99 % interval; None: not bounded by so few blocks
    high: float | None = None
    base_blocks: int = 0
    head_blocks: int = 0
    margin: float = 0.0


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """All rows of two runs. `judged` is False if the hosts differ: then no time is judged, only what went wrong."""

    base: RunInfo
    head: RunInfo
    base_path: str
    head_path: str
    rows: tuple[Change, ...]
    notes: tuple[str, ...] = ()
    judged: bool = True
    anchored: bool = True  # False: `change` is one of times, as other tools' files have no baseline in the same block

    def counts(self) -> dict[str, int]:
        """Verdict -> rows."""
        found: dict[str, int] = {}
        for row in self.rows:
            found[row.verdict] = found.get(row.verdict, 0) + 1
        return found

    def worst(self, fail_on: Collection[str] = FAIL_ON) -> str | None:
        """The gravest verdict that `fail_on` names and some row has."""
        counts = self.counts()
        return next((verdict for verdict, _ in EXIT_CODES if verdict in fail_on and verdict in counts), None)

    def exit_code(self, fail_on: Collection[str] = FAIL_ON) -> int:
        """0 nothing that `fail_on` names; 3 wrong, 4 failed, 1 slower or missing, 5 inconclusive."""
        return dict(EXIT_CODES).get(self.worst(fail_on) or "", 0)


class Margins(msgspec.Struct, frozen=True, kw_only=True):
    """The change that matters, 0.03 for 3 %: of a case, else the largest of its tags, else everywhere, else its own."""

    everywhere: float | None = None
    named: dict[str, float] = {}  # case or tag -> margin

    def of(self, info: CellInfo) -> float:
        """The margin of one cell."""
        if info.case in self.named:
            return self.named[info.case]
        tagged = [self.named[tag] for tag in info.tags if tag in self.named]
        if tagged:
            return max(tagged)
        return info.margin if self.everywhere is None else self.everywhere

    def unknown(self, *infos: RunInfo) -> list[str]:
        """The names that no case and no tag of any of the runs has."""
        known = {name for info in infos for cell in info.cells for name in (cell.case, *cell.tags)}
        return [name for name in self.named if name not in known]


def compare_runs(
    base: Run | Digest, head: Run | Digest, *, margin: float | Margins | None = None, force: bool = False
) -> Comparison:
    """Compare every (cell, variant) of two runs; pure.

    margin: the change that matters, 0.03 for 3 %; without it every cell brings its own.
    force: judge times although the two hosts, or two versions of a case, are not the same.
    """
    base, head = (run if isinstance(run, Digest) else digest(run) for run in (base, head))
    _check_kinds(base, head)
    margins = margin if isinstance(margin, Margins) else Margins(everywhere=margin)
    differences = fingerprint_differences(base.info, head.info)
    judged = force or not differences
    same = ["base and head are the same run"] if base.info.id == head.info.id else []
    notes = [*same, *plan_differences(base, head), *(f"hosts differ in {difference}" for difference in differences)]
    if differences:
        said = "times stand side by side and are not judged; --force judges them"
        notes.append("judged all the same: forced" if force else said)
    rows = list(_changes(base, head, margins, judged, force))
    if not any(row.base_status != MISSING and row.head_status != MISSING for row in rows):
        notes.append("the two runs have no (cell, variant) in common")
    return Comparison(
        base=base.info,
        head=head.info,
        base_path=base.path,
        head_path=head.path,
        rows=tuple(rows),
        notes=(*notes, *(f"base: {p}" for p in base.problems), *(f"head: {p}" for p in head.problems)),
        judged=judged,
    )


def _check_kinds(base: Digest, head: Digest) -> None:
    """Refuse what cannot be compared at all; RunError."""
    for run in (base, head):
        if "ab" in run.info.options:
            raise RunError(f"{run.path}: a run of `ab`, judged already; see `sparsebench report {run.path}`")
    names = [str(run.info.suite.get("name", "")) for run in (base, head)]
    if names[0] != names[1] and not base.sides.keys() & head.sides.keys():
        raise RunError(
            f"{base.path} is a run of {names[0]} and {head.path} one of {names[1]}, and they have no cell in common; "
            "give two runs of one suite"
        )


def _changes(base: Digest, head: Digest, margins: Margins, judged: bool, force: bool) -> Iterator[Change]:
    """A row for every (cell, variant) of either run."""
    old, new = base.info.planned(), head.info.planned()
    both = base.info.precision.keys() & head.info.precision.keys()
    precisions = {variant: precision_difference(base.info, head.info, variant) for variant in both}
    strange = base.info.suite.get("name") != head.info.suite.get("name")
    for key, info in {**new, **old}.items():
        if strange and not (key in old and key in new):  # counted in a note: another suite's cells are not missing
            continue
        sides = base.sides.get(key, {}), head.sides.get(key, {})
        version = version_difference(info, new.get(key, info))
        for variant in dict.fromkeys((*sides[0], *sides[1])):
            changed = version or (precisions.get(variant, "") if key in old and key in new else "")
            was, now = (side.get(variant, NOTHING) for side in sides)
            row = _change(info, variant, was, now, margins.of(info))
            if changed and force:
                row = msgspec.structs.replace(row, reason="; ".join(filter(None, (row.reason, f"forced: {changed}"))))
            elif changed:
                row = msgspec.structs.replace(_unjudged(row, changed), change=None, low=None, high=None)
            elif not judged:
                row = _unjudged(row, "")
            yield row


def _change(info: CellInfo, variant: str, base: Side, head: Side, margin: float) -> Change:
    """The row of one (cell, variant), as if both runs came from one host."""
    row = Change(
        case=info.case,
        title=info.title,
        cell=info.cell,
        variant=variant,
        verdict="inconclusive",
        base_status=base.status,
        head_status=head.status,
        base_ms=base.ns and base.ns / 1e6,
        head_ms=head.ns and head.ns / 1e6,
        base_blocks=len(base.ratios),
        head_blocks=len(head.ratios),
        margin=margin,
    )
    if (base.status, head.status) != ("ok", "ok"):
        verdict, reason = _status_verdict(base, head)
    elif variant == info.baseline:
        verdict, reason = "anchor", "the baseline is what the others are measured by"
    elif not base.ratios or not head.ratios:
        side = "head" if base.ratios else "base"
        verdict, reason = "inconclusive", f"no block of {side} has a time of both this and the baseline"
    else:
        estimate, low, high = hodges_lehmann_two(base.ratios, head.ratios, ALPHA)
        verdict, reason = judge(base.ratios, head.ratios, (low, high), margin, base.ns or 0.0)
        bounds = {"low": math.exp(low), "high": math.exp(high)} if math.isfinite(low) else {}
        return msgspec.structs.replace(row, verdict=verdict, reason=reason, change=math.exp(estimate), **bounds)
    return msgspec.structs.replace(row, verdict=verdict, reason=reason)


def judge(
    base: Sequence[float], head: Sequence[float], interval: tuple[float, float], margin: float, base_ns: float
) -> tuple[Verdict, str]:
    """(verdict, reason) from the block values log(time / baseline's time) of either side, and their shift's interval.

    base_ns is the variant's time in the base run: the margin is never less than FLOOR_NS of it.
    """
    if min(len(base), len(head)) < FULL_BLOCKS:
        return _judge_few(base, head, FEW_MARGINS * math.log1p(margin), limits_of(0.0, base_ns).slower)
    call = called(*interval, limits_of(margin, base_ns))
    return call, "the interval reaches across a margin; more blocks narrow it" if call == "inconclusive" else ""


def _judge_few(base: Sequence[float], head: Sequence[float], margins: float, floor: float) -> tuple[Verdict, str]:
    """Too few blocks for an interval: only a slowdown that cannot be missed is called."""
    if min(len(base), len(head)) >= FEW_BLOCKS and min(head) > max(base):
        if median(head) - median(base) > max(margins, floor):
            return "slower", f"by more than {FEW_MARGINS} margins, in every block"
        least = f"{FEW_MARGINS} margins" if margins >= floor else f"{FLOOR_NS / 1000:g} us"
        return "inconclusive", f"slower in every block, but by less than {least}; {ADVICE}"
    return "inconclusive", f"{len(base)} and {len(head)} blocks: {ADVICE}"


def _status_verdict(base: Side, head: Side) -> tuple[Verdict, str]:
    """What it means that at least one side has no time."""
    arrow = f"{base.status} -> {head.status}"
    told = f"{arrow}: {head.reason}" if head.reason else arrow
    if head.status == "contaminated" or (base.status, head.status) == ("contaminated", "ok"):
        return "inconclusive", told
    if base.status == head.status:
        return "unchanged", told
    if head.status == "wrong":
        return "wrong", told
    if head.status in FAILED:
        return "failed", told
    if head.status == "ok":
        return ("fixed" if base.status in {"wrong", *FAILED} else "new"), arrow
    return ("missing" if base.status in ("ok", "contaminated") else "unchanged"), told


def _unjudged(row: Change, reason: str) -> Change:
    """The row where times mean nothing: what is wrong, failed or missing stays so, what time says is not judged."""
    if row.verdict in ABOUT_TIMES:
        status = f"{row.base_status} -> {row.head_status}" if row.base_status != row.head_status else ""
        return msgspec.structs.replace(row, verdict="not judged", reason=reason or status)
    return msgspec.structs.replace(row, reason="; ".join(filter(None, (row.reason, reason))))
