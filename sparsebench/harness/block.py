"""One cell in one block: every variant prepared, sampled in turn, looked at again, and written down."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sparsebench.harness import policy
from sparsebench.harness.cells import Cell
from sparsebench.harness.crew import Crew
from sparsebench.harness.server import NOBODY, Failure, ServerLost
from sparsebench.harness.vitals import stolen_ticks
from sparsebench.runs.records import Sample

STRAYS = 5  # deaths of the fork server in a block that are held against nobody
NO_ORACLE = "the oracle could not be computed"


@dataclass
class Track:
    """What has been seen of one variant in this cell of this block."""

    prepared: dict[str, Any] = field(default_factory=dict)
    failure: Failure | None = None
    laps: list[dict[str, Any]] = field(default_factory=list)
    places: list[int] = field(default_factory=list)  # place in each round
    finished: dict[str, Any] = field(default_factory=dict)
    printed: int = 0


def measure(crew: Crew, cell: Cell, variants: Sequence[str], run_id: str, session: int, times: int = 1) -> list[Sample]:
    """The samples of one cell in one block: one for each variant, whatever became of it; of `times` the rounds."""
    seed = f"{run_id}/{crew.block}/{cell.key}"
    stolen, ticks = stolen_ticks()
    tracks, schedule = _attempt(crew, cell, list(variants), seed, times)
    stolen_after, ticks_after = stolen_ticks()
    steal = (stolen_after - stolen) / max(1, ticks_after - ticks)
    good = {v: t for v, t in tracks.items() if t.failure is None}
    dropped = policy.spoiled_rounds(_walls(good), _cpus(good), cell.threads)
    return [_record(crew, cell, v, t, schedule, dropped, steal, session) for v, t in tracks.items()]


def _attempt(
    crew: Crew, cell: Cell, variants: list[str], seed: str, times: int
) -> tuple[dict[str, Track], policy.Schedule]:
    """Prepare, sample, finish. Who takes the fork server down has failed; the others begin again."""
    lost: dict[str, Track] = {}
    while True:
        tracks = {variant: Track() for variant in variants if variant not in lost}
        try:
            _prepare(crew, cell, tracks, seed)
            schedule = _sample(crew, cell, tracks, seed, times)
            _finish(crew, cell, tracks)
        except ServerLost:
            lost |= {name: track for name, track in tracks.items() if isinstance(track.failure, ServerLost)}
        else:
            return {name: (lost | tracks)[name] for name in variants}, schedule


def _prepare(crew: Crew, cell: Cell, tracks: dict[str, Track], seed: str) -> None:
    """Bind and verify, in random order."""
    try:
        crew.ensure_oracle(cell)
    except Failure as failure:
        for track in tracks.values():
            track.failure = Failure(failure.status, f"{NO_ORACLE}: {failure.reason}")
        return
    names = list(tracks)
    random.Random(f"{seed}/prepare").shuffle(names)
    for name in names:
        request = {"do": "prepare", "order": crew.order(cell, name), "once": _trains(cell), "brief": crew.block > 0}
        tracks[name].printed = crew.printed(name)
        spoiled = crew.unfit.get((cell.group, name))
        if spoiled is not None:
            tracks[name].failure = spoiled
            continue
        _try(crew, cell, tracks[name], name, request, tracks[name].prepared)
        failed = tracks[name].failure
        if failed is not None:  # verification covers every pass, so one failure is that of the whole group
            crew.unfit[cell.group, name] = failed


def _sample(crew: Crew, cell: Cell, tracks: dict[str, Track], seed: str, times: int) -> policy.Schedule:
    """Rounds: each visits every variant that is still well, in its own order."""
    each = {name: t.prepared["each_ns"] for name, t in tracks.items() if t.failure is None}
    schedule = policy.schedule(each, cell.case.rounds, policy.streams_memory(cell.problem), times)
    discarded = policy.orders(list(each), schedule.discarded, f"{seed}/discarded")  # so that those kept are balanced
    for number, order in enumerate([*discarded, *policy.orders(list(each), schedule.rounds, seed)]):
        for place, name in enumerate(order):
            track = tracks[name]
            if track.failure is not None:
                continue
            lap: dict[str, Any] = {}
            request = {"do": "lap", "loops": schedule.loops[name], "warm_ns": schedule.warm_ns[name]}
            _try(crew, cell, track, name, request, lap, crew.training_seconds if _trains(cell) else None)
            if number >= schedule.discarded and track.failure is None:
                track.laps.append(lap)
                track.places.append(place)
    return schedule


def _finish(crew: Crew, cell: Cell, tracks: dict[str, Track]) -> None:
    """Verify once more: a kernel that drifts is caught here, and has no time."""
    for name, track in tracks.items():
        if track.failure is None:
            _try(crew, cell, track, name, {"do": "finish"}, track.finished)
            track.printed = crew.printed(name) - track.printed


def _trains(cell: Cell) -> bool:
    """Whether one repetition is a whole training, which is done once."""
    return "epochs" in cell.parameters


def _try(
    crew: Crew,
    cell: Cell,
    track: Track,
    name: str,
    request: dict[str, Any],
    into: dict[str, Any],
    seconds: float | None = None,
) -> None:
    try:
        into.update(crew.ask(name, request) if seconds is None else crew.ask(name, request, seconds))
    except Failure as failure:
        if isinstance(failure, ServerLost) and failure.reason == NOBODY and crew.strays < STRAYS:
            crew.strays += 1
            raise
        track.failure = failure
        if isinstance(failure, ServerLost):
            crew.unfit[cell.group, name] = failure
            raise


def _walls(tracks: dict[str, Track]) -> dict[str, list[float]]:
    return {name: [lap["wall_ns"] for lap in track.laps] for name, track in tracks.items()}


def _cpus(tracks: dict[str, Track]) -> dict[str, list[float]]:
    return {name: [lap["cpu_ns"] for lap in track.laps] for name, track in tracks.items()}


def _record(
    crew: Crew,
    cell: Cell,
    name: str,
    track: Track,
    schedule: policy.Schedule,
    dropped: list[int],
    steal: float,
    session: int,
) -> Sample:
    if track.failure is not None:
        return Sample(
            case=cell.case.name, cell=dict(cell.axes), variant=name, block=crew.block, session=session,
            status=track.failure.status, reason=track.failure.reason, verify=track.prepared.get("verify", {}),
        )  # fmt: skip
    loops = schedule.loops[name]
    contaminated = policy.is_contaminated(len(dropped), len(track.laps))
    kept = [lap for i, lap in enumerate(track.laps) if i not in dropped] or track.laps
    return Sample(
        case=cell.case.name,
        cell=dict(cell.axes),
        variant=name,
        block=crew.block,
        session=session,
        status="contaminated" if contaminated else "ok",
        reason=f"something else had the core in {len(dropped)} of {len(track.laps)} rounds" if contaminated else None,
        order=track.places,
        t_ns=[lap["wall_ns"] / loops for lap in track.laps],
        dropped=dropped,
        loops=loops,
        splits_ns=_medians([lap["splits_ns"] for lap in kept]),
        metrics=kept[-1]["metrics"],
        verify=track.prepared["verify"],
        rss_peak=track.finished["rss_peak"],
        canary=track.finished["canary"],
        steal=round(steal, 5),
        note=_note(track),
    )


def _note(track: Track) -> str:
    noted = track.finished.get("note", track.prepared["note"])  # a method may have said something since
    parts = [str(noted), f"printed {track.printed} bytes" if track.printed > 0 else ""]
    return "; ".join(part for part in parts if part)


def _medians(tables: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(table[name] for table in tables) for name in tables[0]} if tables else {}
