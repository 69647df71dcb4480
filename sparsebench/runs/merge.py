"""Shards of one plan (`run --shard i/n`) as one run: the samples of all under one head.

Blocks of one number in two shards are not one block: they were other processes at another time. Nothing pairs across
cells but the range of a geometric mean, which is over numbers of blocks; ratios are of one cell, so of one shard.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from sparsebench.errors import RunError
from sparsebench.runs.differences import fingerprint_differences
from sparsebench.runs.records import KINDS, CellInfo, RunInfo, cell_key
from sparsebench.runs.store import Run, RunWriter, read_run

Shard = tuple[int, int]


class MergeError(RunError):
    """Runs that are not shards of one plan; `field` is what differs or collides."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def merge(folders: Sequence[str | Path], out: str | Path) -> tuple[Run, list[str]]:
    """Write the shards as one run to the folder `out`: the run as read again, and what is missing or was skipped.

    MergeError if they are not of one suite, plan, machine and code, or overlap; RunError if one cannot be read.
    """
    runs = sorted((read_run(folder) for folder in folders), key=_shard_of)
    if len(runs) < 2:
        raise MergeError("runs", f"{runs[0].path}: one run alone is nothing to merge; give all shards")
    for other in runs[1:]:
        _demand_one_plan(runs[0], other)
    _demand_apart(runs)
    count = _shard_of(runs[0])[1]
    missing = sorted(set(range(1, count + 1)) - {_shard_of(run)[0] for run in runs})
    info = _head(runs, missing)
    with RunWriter.create(out, info) as writer:
        for run in runs:
            writer.append(run.samples)
    notes = [f"{run.path}: {problem}" for run in runs for problem in run.problems]
    if missing:
        names = ", ".join(f"{index}/{count}" for index in missing)
        notes.append(f"{len(missing)} of {count} shards are missing, and so are their cells: {names}")
    return read_run(out), notes


def _shard_of(run: Run) -> Shard:
    """Which part of how many; MergeError for a run that does not say."""
    shard = run.info.options.get("selection", {}).get("shard")
    if not (isinstance(shard, list | tuple) and len(shard) == 2 and all(isinstance(n, int) for n in shard)):
        raise MergeError("shard", f"{run.path}: run.json does not say which shard it is; make it with --shard I/N")
    if shard[1] < 2:
        raise MergeError("shard", f"{run.path}: a whole run, not a shard; make shards with --shard I/N")
    return shard[0], shard[1]


def _demand_one_plan(one: Run, other: Run) -> None:
    """Both of one suite, machine, code and selection."""
    for field, mine, theirs in zip(_FIELDS, _plan_of(one.info), _plan_of(other.info), strict=True):
        if mine != theirs:
            told = _differing(mine, theirs)
            raise MergeError(
                field, f"{one.path} and {other.path} are not shards of one plan: {field} differs{told}; merge what fits"
            )
    differences = fingerprint_differences(one.info, other.info)
    if differences:
        field = differences[0].partition(":")[0]
        raise MergeError(
            field, f"{one.path} and {other.path} are of different machines: {'; '.join(differences)}; merge what fits"
        )
    for name in one.info.environment.keys() & other.info.environment.keys():  # a thread count that both have
        if one.info.environment[name] != other.info.environment[name]:
            raise MergeError("environment", f"{one.path} and {other.path} set other variables for workers of {name}")


_FIELDS = ("suite", "code", "plugins", "libraries", "selection", "shard count")


def _plan_of(info: RunInfo) -> tuple[Any, ...]:
    """What all shards share, in the order of _FIELDS."""
    selection = dict(info.options.get("selection", {}))
    shard = selection.pop("shard", (1, 1))
    options = {name: value for name, value in info.options.items() if name != "selection"}
    plugins = {plugin.name: f"{plugin.version} {plugin.sha256} {plugin.status}" for plugin in info.plugins}
    suite = {name: info.suite.get(name) for name in ("name", "sha256")}
    count = {"of": shard[1]}
    return suite, {"hash": info.code}, plugins, info.libraries, {**options, **selection}, count


def _differing(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    names = [name for name in dict.fromkeys((*mine, *theirs)) if mine.get(name) != theirs.get(name)]
    return f" in {', '.join(f'{name}: {mine.get(name)} / {theirs.get(name)}' for name in names)}"


def _demand_apart(runs: Sequence[Run]) -> None:
    """No shard twice, and no cell in two of them."""
    shards: dict[Shard, Run] = {}
    cells: dict[str, Run] = {}
    for run in runs:
        shard = _shard_of(run)
        if shard in shards:
            name = f"{shard[0]}/{shard[1]}"
            raise MergeError("shard", f"{shards[shard].path} and {run.path} are both shard {name}; leave one out")
        shards[shard] = run
        for cell in run.info.cells:
            key = cell_key(cell.case, cell.cell)
            if key in cells:
                raise MergeError("cell", f"{cells[key].path} and {run.path} both have {key}; leave one out")
            cells[key] = run


def _head(runs: Sequence[Run], missing: Sequence[int]) -> RunInfo:
    """The first shard's head with the cells, variants and threads of all, and where they came from."""
    first = runs[0].info
    ids = [run.info.id for run in runs]
    shards = {"merged": ids, "missing": list(missing), "of": _shard_of(runs[0])[1]}
    selection = {**first.options["selection"], "shard": [1, 1]}
    ceilings = {each["threads"]: each for run in reversed(runs) for each in run.info.host.get("ceilings", ())}
    host = {**first.host, **({"ceilings": [ceilings[n] for n in sorted(ceilings)]} if ceilings else {})}
    return msgspec.structs.replace(
        first,
        id=hashlib.sha256(" ".join(ids).encode()).hexdigest()[:8],
        started=min(run.info.started for run in runs),
        argv=["sparsebench", "merge", *(str(run.path) for run in runs)],
        host=host,
        cells=_in_order([cell for run in runs for cell in run.info.cells], first.suite),
        precision={name: kind for run in runs for name, kind in run.info.precision.items()},
        peers=list(dict.fromkeys(peer for run in runs for peer in run.info.peers)),
        environment={name: value for run in runs for name, value in run.info.environment.items()},
        options={**first.options, "selection": selection, "shards": shards},
    )


def _in_order(cells: Sequence[CellInfo], suite: Mapping[str, Any]) -> list[CellInfo]:
    """As a run has them: by kind, as the suite's text has the cases; within one by its axes, words as they come."""
    kinds = dict.fromkeys(kind for kind in KINDS if any(cell.kind == kind for cell in cells))
    try:
        tables = tomllib.loads(str(suite.get("text", "")))
        written = [str(case["name"]) for kind in kinds for case in tables.get(kind, [])]
    except (tomllib.TOMLDecodeError, KeyError, TypeError):
        written = []
    names = {name: place for place, name in enumerate(dict.fromkeys([*written, *(cell.case for cell in cells)]))}
    words = {word: place for place, word in enumerate(dict.fromkeys(str(v) for c in cells for v in c.cell.values()))}

    def place(cell: CellInfo) -> tuple[Any, ...]:
        axes = [(0, v) if isinstance(v, int | float) else (1, words[str(v)]) for v in cell.cell.values()]
        return names[cell.case], axes

    return sorted(cells, key=place)
