"""pytest-benchmark's JSON, both ways: a run as a file for `pytest-benchmark compare`, and two such files compared.

One of its rounds is one of our rounds, of all blocks. Read back, its rounds are those of one process: they agree with
each other more than with the next process, and nothing anchors them to what the machine did meanwhile. So two files
are set side by side with the ratio of their medians, and no time is judged; only what is gone is called `missing`.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import msgspec

from sparsebench.errors import RunError
from sparsebench.formats._rows import TimedRow, timed_rows
from sparsebench.runs.compare import Change, Comparison
from sparsebench.runs.differences import fingerprint_differences
from sparsebench.runs.records import RunInfo
from sparsebench.runs.stats import median
from sparsebench.runs.store import Run
from sparsebench.runs.summary import MISSING

VERSION = "5.1.0"  # of the format's keys, which have been the same since 3.2
NOT_JUDGED = (
    "pytest-benchmark's rounds are of one process, without blocks and without a baseline beside them: "
    "ratios of medians are shown, no time is judged; `sparsebench run` measures what can be"
)


class _Stats(msgspec.Struct):
    """Of one benchmark, in seconds; `data` is there with --benchmark-save-data or --benchmark-json."""

    median: float
    rounds: int = 0


class _Benchmark(msgspec.Struct):
    name: str
    stats: _Stats
    fullname: str = ""
    group: str | None = None


class _File(msgspec.Struct):
    benchmarks: list[_Benchmark]
    machine_info: dict[str, Any] = {}
    commit_info: dict[str, Any] = {}
    datetime: str = ""


def export(run: Run) -> str:
    """A benchmark for every (cell, variant) that has a time; RunError if nothing has."""
    fingerprint = run.info.host.get("fingerprint", {})
    told = {
        "machine_info": {
            "node": "",
            "machine": str(fingerprint.get("machine", "")),
            "system": "Linux",
            "cpu": {"brand_raw": str(fingerprint.get("cpu", "")), "count": fingerprint.get("cores_allowed")},
            "sparsebench": fingerprint,
        },
        "commit_info": {
            "id": str(run.info.git.get("commit", "")) or "unknown",
            "time": None,
            "dirty": bool(run.info.git.get("dirty")),
            "project": "sparsebench",
            "branch": "(unknown)",
        },
        "benchmarks": [_benchmark(run, row) for row in timed_rows(run)],
        "datetime": run.info.started,
        "version": VERSION,
    }
    return json.dumps(told, indent=1) + "\n"


def _benchmark(run: Run, row: TimedRow) -> dict[str, Any]:
    return {
        "group": f"{row.info.case}: {row.info.title}",
        "name": row.name,
        "fullname": f"{run.info.suite.get('name', 'run')}::{row.name}",
        "params": {**row.info.cell, "variant": row.variant},
        "param": row.variant,
        "extra_info": {"run": run.info.id, "blocks_ns": row.blocks_ns(), "ratio": row.ratio_text()},
        "options": {"disable_gc": True, "timer": "perf_counter_ns", "min_rounds": len(row.samples[0].t_ns),
                    "max_time": 0.0, "min_time": 0.0, "warmup": True},
        "stats": statistics_of([t / 1e9 for t in row.rounds_ns()], max(1, row.samples[0].loops)),
    }  # fmt: skip


def statistics_of(data: list[float], iterations: int) -> dict[str, Any]:
    """The table that pytest-benchmark keeps of one benchmark's rounds, in seconds."""
    ordered, count = sorted(data), len(data)
    mean = math.fsum(data) / count
    spread = math.sqrt(math.fsum((x - mean) ** 2 for x in data) / (count - 1)) if count > 1 else 0.0
    q1, q3 = _quartiles(ordered)
    low, high = q1 - 1.5 * (q3 - q1), q3 + 1.5 * (q3 - q1)
    inside = [x for x in ordered if low <= x <= high]
    far = sum(abs(x - mean) > spread for x in data)
    return {
        "min": ordered[0], "max": ordered[-1], "mean": mean, "stddev": spread, "rounds": count,
        "median": median(ordered), "iqr": q3 - q1, "q1": q1, "q3": q3, "iqr_outliers": count - len(inside),
        "stddev_outliers": far, "outliers": f"{far};{count - len(inside)}", "ld15iqr": inside[0], "hd15iqr": inside[-1],
        "ops": 1 / mean, "total": math.fsum(data), "data": data, "iterations": iterations,
    }  # fmt: skip


def _quartiles(ordered: list[float]) -> tuple[float, float]:
    """As pytest-benchmark has them: medians of the halves; of an odd number between two values, three to one."""
    count = len(ordered)
    if count == 1:
        return ordered[0], ordered[0]
    if count % 2 == 0:
        return median(ordered[: count // 2]), median(ordered[count // 2 :])
    n, rest = divmod(count, 4)
    if rest == 1:
        return 0.25 * ordered[n - 1] + 0.75 * ordered[n], 0.75 * ordered[3 * n] + 0.25 * ordered[3 * n + 1]
    return 0.75 * ordered[n] + 0.25 * ordered[n + 1], 0.25 * ordered[3 * n + 1] + 0.75 * ordered[3 * n + 2]


def is_file(path: Path) -> bool:
    """Whether a path is meant as a file of pytest-benchmark: one .json that is not the head of a run."""
    return path.is_file() and path.suffix == ".json" and path.name != "run.json"


def compare(base: Path, head: Path) -> Comparison:
    """Two files side by side; RunError where one cannot be read."""
    old, new = _read(base), _read(head)
    infos = _info(base, old), _info(head, new)
    tables = [{b.fullname or b.name: b for b in file.benchmarks} for file in (old, new)]
    rows = [_change(name, *(table.get(name) for table in tables)) for name in dict.fromkeys((*tables[0], *tables[1]))]
    notes = [NOT_JUDGED, *(f"hosts differ in {each}" for each in fingerprint_differences(*infos))]
    if not any(name in tables[1] for name in tables[0]):
        notes.append("the two files have no benchmark in common")
    for side, file, table in (("base", old, tables[0]), ("head", new, tables[1])):
        double = len(file.benchmarks) - len(table)
        notes += [f"{side}: {double} benchmarks are there twice; the last stands"] if double else []
    return Comparison(
        base=infos[0], head=infos[1], base_path=str(base), head_path=str(head), rows=tuple(rows), notes=tuple(notes),
        judged=False, anchored=False,
    )  # fmt: skip


def _read(path: Path) -> _File:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_File)
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror}); give a file of pytest-benchmark") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RunError(
            f"{path}: not a whole file of pytest-benchmark ({error}); write it again with --benchmark-json"
        ) from None


def _info(path: Path, file: _File) -> RunInfo:
    """The head of a run that says as much as the file does."""
    machine = file.machine_info
    cpu = machine.get("cpu") or {}
    cpu = cpu if isinstance(cpu, dict) else {"brand_raw": str(cpu)}  # whatever a hook made of it
    fields = {"cpu": cpu.get("brand_raw", ""), "cores": cpu.get("count"), "machine": machine.get("machine", ""),
              "python": machine.get("python_version", "")}  # fmt: skip
    commit = file.commit_info
    return RunInfo(
        id=path.stem, argv=["pytest-benchmark"], started=file.datetime, suite={"name": path.name},
        git={"commit": str(commit.get("id", "")), "dirty": bool(commit.get("dirty"))},
        host={"fingerprint": {key: value for key, value in fields.items() if value not in ("", None)}},
    )  # fmt: skip


def _change(name: str, base: _Benchmark | None, head: _Benchmark | None) -> Change:
    found = base or head
    assert found is not None, "one of the two files has it"
    change = Change(
        case=found.group or name.partition("::")[0], title="pytest-benchmark", cell={}, variant=found.name,
        verdict="not judged", margin=0.0,
        base_status="ok" if base else MISSING, head_status="ok" if head else MISSING,
        base_ms=base.stats.median * 1e3 if base else None, head_ms=head.stats.median * 1e3 if head else None,
    )  # fmt: skip
    if base is None or head is None:
        return msgspec.structs.replace(change, verdict="missing" if base else "new")
    if base.stats.median > 0 and head.stats.median > 0:
        return msgspec.structs.replace(change, change=head.stats.median / base.stats.median)
    return msgspec.structs.replace(change, reason="a median of no time: a clock went backwards or stood still")
