"""From records to the rows of tables: one for every (cell, variant) of the plan, whatever became of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from sparsebench.runs.blocks import kept, log_ratios, loosened, times_of
from sparsebench.runs.break_even import BreakEven, break_evens_of_cases, break_evens_of_means
from sparsebench.runs.contests import Contest, contests_of
from sparsebench.runs.records import SCORED, TIMED, CellInfo, RunInfo, Sample, Timing
from sparsebench.runs.roofline import Roof, ceilings_of, roof_of
from sparsebench.runs.scores import Ranking, Score, rankings_of, scores_of
from sparsebench.runs.stats import median
from sparsebench.runs.store import Run
from sparsebench.runs.tally import Tally

# One bad block makes the row bad: first in this list wins. `contaminated` is not in it, it needs all blocks.
WORST_FIRST = ("wrong", "crash", "timeout", "oom", "error", "skipped", "unsupported")
MISSING = "missing"
FAILED = frozenset({"crash", "timeout", "oom", "error"})
MAX_CONTAMINATED = 1 / 3  # more blocks than this lost to other work, and the row says so

Blocks = Mapping[int, Sample]  # of one row, by number


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One variant in one cell over all blocks. Times and ratios are None unless `status` is `ok` or `contaminated`.

    A contaminated row with times `is_rough`: other work spoiled every block, so they come from spoiled ones. It is
    shown and marked, never wins, and takes no part in geometric means.

    Ratios are baseline time / this time (above 1 is faster), paired within blocks; `low` and `high` are
    the range over blocks, not an interval.
    """

    case: str
    kind: str
    title: str
    cell: dict[str, Any]
    variant: str
    status: str
    reason: str = ""
    is_baseline: bool = False
    precision: str = ""
    same_class: bool = True  # as the baseline: only these rows can win
    is_best: bool = False
    is_rough: bool = False  # its times are a rough idea, not a result
    ms: float | None = None
    ms_low: float | None = None
    ms_high: float | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    block_ratios: dict[int, float] = {}
    peer: str = ""  # the fastest of other people's sparse software in this cell
    peer_ratio: float | None = None  # its time / this time, paired as `ratio`
    useful_gflops: float | None = None
    dense_gflops: float | None = None
    ceiling_gflops: float | None = None  # the most useful GFLOP/s that the machine was measured to allow here
    ceiling_bound: str = ""  # what sets that limit: "FMA", "L1", "L2", "L3", "memory"
    ceiling_share: float | None = None  # useful_gflops / ceiling_gflops
    splits_ms: dict[str, float] = {}
    metrics: dict[str, float] = {}
    rss_peak: int = 0
    max_rel_err: float | None = None
    tolerance: float | None = None
    blocks: int = 0  # with a time
    blocks_planned: int = 0
    blocks_contaminated: int = 0
    rounds: int = 0
    rounds_dropped: int = 0
    notes: tuple[str, ...] = ()


class RunSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A run as its reports show it."""

    info: RunInfo
    rows: tuple[Row, ...]
    contests: tuple[Contest, ...]
    break_evens: tuple[BreakEven, ...] = ()  # of cases, then of the means of groups
    scores: tuple[Score, ...] = ()  # of trainings, over seeds
    rankings: tuple[Ranking, ...] = ()
    problems: tuple[str, ...] = ()
    path: str = ""

    def counts(self) -> dict[str, int]:
        """Status -> rows."""
        found: dict[str, int] = {}
        for row in self.rows:
            found[row.status] = found.get(row.status, 0) + 1
        return found


def summarize(run: Run) -> RunSummary:
    """All rows of the plan in its order, and who wins; pure."""
    index: dict[str, dict[str, Blocks]] = {}
    for (key, variant), blocks in run.rows.items():
        index.setdefault(key, {})[variant] = blocks
    ceilings = ceilings_of(run.info)
    planned = run.info.planned()
    cells = [
        (info, _rows_of_cell(info, index.get(key, {}), run.info, roof_of(info, ceilings)))
        for key, info in planned.items()
    ]
    rows = [row for _, of_cell in cells for row in of_cell]
    problems = [
        *run.problems,
        *_missing_shards(run.info),
        *(f"{key}: samples of a cell that run.json does not plan, left out" for key in sorted(index.keys() - planned)),
    ]
    contests = contests_of(pair for pair in cells if pair[0].kind not in SCORED)
    scores = scores_of(rows)
    return RunSummary(
        info=run.info,
        rows=tuple(rows),
        contests=contests,
        break_evens=(*break_evens_of_cases(rows), *break_evens_of_means(contests)),
        scores=scores,
        rankings=rankings_of(scores),
        problems=tuple(problems),
        path=str(run.path),
    )


def _missing_shards(info: RunInfo) -> list[str]:
    """What a merged run says of the shards that it was merged without."""
    shards = info.options.get("shards", {})
    missing, of = shards.get("missing", ()), shards.get("of")
    names = ", ".join(f"{index}/{of}" for index in missing)
    return [f"{len(missing)} of {of} shards are missing: {names}"] if missing else []


def _rows_of_cell(info: CellInfo, found: Mapping[str, Blocks], run: RunInfo, roof: Roof | None) -> list[Row]:
    """The rows of one cell, compared with each other: the fastest, the best peer, the share of the ceiling."""
    variants = [*info.variants, *(v for v in found if v not in info.variants)]
    baseline = found.get(info.baseline, {})
    anchored = status_of(baseline)[0] in TIMED
    wanted = run.precision.get(info.baseline, "float32")
    rows = [
        _row(info, v, run.precision.get(v, "float32"), wanted, found.get(v, {}), baseline if anchored else {})
        for v in variants
    ]
    best, peer = best_of(rows), best_of(row for row in rows if row.variant in run.peers and row.status == "ok")
    told = []
    for row in rows:
        more = _under(roof, row)
        if row.variant == best:
            more["is_best"] = True
        if peer:
            more["peer"] = peer
        if peer and row.ms and not row.is_rough:
            logs = log_ratios(found.get(peer, {}), found.get(row.variant, {}))
            more["peer_ratio"] = math.exp(median(logs.values())) if logs else None
        told.append(msgspec.structs.replace(row, **more) if more else row)
    return told


def _under(roof: Roof | None, row: Row) -> dict[str, Any]:
    """What the machine allows, and the share of it; the ceilings are of float32."""
    if roof is None or row.precision != "float32":
        return {}
    share = row.useful_gflops / roof.gflops if row.useful_gflops else None
    return {"ceiling_gflops": roof.gflops, "ceiling_bound": roof.bound, "ceiling_share": share}


def best_of(rows: Iterable[Row]) -> str | None:
    """The fastest variant of a cell among those that may win: by ratio, by time if the baseline has none."""
    able = [row for row in rows if row.ms is not None and row.same_class and not row.is_rough]
    paired = [row for row in able if row.ratio is not None]
    if paired:
        return max(paired, key=lambda row: row.ratio or 0.0).variant
    return min(able, key=lambda row: row.ms or math.inf).variant if able else None


def status_of(blocks: Mapping[int, Timing]) -> tuple[str, str]:
    """(status, reason) of a row: the worst of its blocks; `missing` if there are none."""
    if not blocks:
        return MISSING, "planned but never measured; --resume completes the run"
    found = {s.status for s in blocks.values()}
    worst = None if found <= TIMED else next((status for status in WORST_FIRST if status in found), None)
    if worst:
        bad = [blocks[b] for b in sorted(blocks) if blocks[b].status == worst]
        reason = bad[0].reason or ""
        partly = len(bad) < len(blocks)
        return worst, f"{reason} (in {len(bad)} of {len(blocks)} blocks)".strip() if partly else reason
    if not any(map(kept, blocks.values())):
        return "contaminated", "other work on this machine spoiled every block; run again when it is quiet"
    return "ok", ""


def _row(info: CellInfo, variant: str, precision: str, wanted: str, blocks: Blocks, baseline: Blocks) -> Row:
    """One row, before the rows of its cell are compared; `baseline` is empty if it has no times."""
    status, reason = status_of(blocks)
    samples = [blocks[b] for b in sorted(blocks)]
    good = times_of(blocks)
    tally = Tally(samples, TIMED if status == "contaminated" else (status,))
    spoiled = tally.timed - len(good)  # timed, and no round to use
    if status == "contaminated":
        blocks, baseline = ({b: loosened(s) for b, s in each.items()} for each in (blocks, baseline))
        good = times_of(blocks)
    is_rough = status == "contaminated"
    if is_rough and info.kind in SCORED:  # what was learnt does not depend on who else had the core
        status, reason = "ok", ""
    times = list(good.values()) if status in TIMED else []
    return Row(
        case=info.case,
        kind=info.kind,
        title=info.title,
        cell=info.cell,
        variant=variant,
        status=status,
        reason=reason,
        is_baseline=variant == info.baseline,
        precision=precision,
        same_class=precision == wanted,
        is_rough=is_rough and bool(times),
        splits_ms={k: v / 1e6 for k, v in _medians(tally.splits_ns).items()} if times else {},
        metrics=_medians(tally.metrics) if status in TIMED else {},
        rss_peak=tally.rss_peak,
        max_rel_err=tally.verify.get("max_rel_err"),
        tolerance=tally.verify.get("tolerance"),
        blocks=len(times),
        blocks_planned=info.blocks,
        blocks_contaminated=spoiled,
        rounds=tally.rounds,
        rounds_dropped=tally.dropped,
        notes=_notes(info, tally, status, spoiled, len(times)),
        **_times(info, times),
        **_ratios(log_ratios(baseline, blocks) if times else {}),
    )


def _times(info: CellInfo, times: list[float]) -> dict[str, Any]:
    """Median and range of the block times, and what they mean in GFLOP/s (1 flop/ns)."""
    if not times:
        return {}
    middle = median(times)
    return {
        "ms": middle / 1e6,
        "ms_low": min(times) / 1e6,
        "ms_high": max(times) / 1e6,
        "useful_gflops": info.useful_flop / middle if info.useful_flop else None,
        "dense_gflops": info.dense_flop / middle if info.dense_flop else None,
    }


def _ratios(logs: dict[int, float]) -> dict[str, Any]:
    """Median and range of the ratio to the baseline over blocks."""
    if not logs:
        return {}
    ratios = {block: math.exp(value) for block, value in logs.items()}
    return {
        "ratio": math.exp(median(logs.values())),
        "ratio_low": min(ratios.values()),
        "ratio_high": max(ratios.values()),
        "block_ratios": ratios,
    }


def _medians(tables: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Key -> median over the tables that have it, in the order keys first come."""
    found: dict[str, list[float]] = {}
    for table in tables:
        for key, value in table.items():
            found.setdefault(key, []).append(value)
    return {key: median(values) for key, values in found.items()}


def _notes(info: CellInfo, tally: Tally, status: str, spoiled: int, timed: int) -> tuple[str, ...]:
    """What the workers noted, once each, and what is unusual about the blocks (of a rough row its status says that)."""
    notes = list(tally.notes)
    if status == "ok" and spoiled > MAX_CONTAMINATED * tally.samples:
        notes.append(f"lost {spoiled} of {tally.samples} blocks to other work: take the time as a hint")
    if timed and tally.samples < info.blocks:
        notes.append(f"{tally.samples} of {info.blocks} blocks measured; --resume completes the run")
    return tuple(notes)
