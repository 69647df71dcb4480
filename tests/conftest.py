"""What tests of all folders share: runs made up to order, and which tests must not run beside others."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from sparsebench.runs.records import CellInfo, RunInfo, Sample
from sparsebench.runs.store import Run

os.environ["SPARSEBENCH_PLANS"] = ""  # what its user has tuned on this machine must not decide a test
# A shell's background job ignores Ctrl-C, and so would the commands that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
# They look at clocks, or start runs that do: beside other tests their blocks would be spoiled. `make pytest` runs the
# others several at a time.
ALONE = (
    "benchmarks", "ci", "cli/test_ab.py", "cli/test_doctor.py", "cli/test_run.py", "cli/test_tune.py", "harness",
    "kernels/test_ceilings.py", "nn/test_tuning.py", "pruning/test_latency.py",
    "runs/test_store.py", "test_ceilings.py", "test_import_time.py", "test_probing.py", "test_timing.py",
    "testing/test_pytest_plugin.py", "training/test_step.py",
)  # fmt: skip
HOST = {"fingerprint": {"cpu": "AMD EPYC 7713", "cores_allowed": 2, "libraries": {"torch": "2.13"}}}
TIMES = {"torch-dense": 2e6, "torch-csr": 4e6, "cython": 1e6}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what has to run alone."""
    places = [Path(__file__).parent / each for each in ALONE]
    gone = [str(place) for place in places if not place.exists()]
    assert not gone, f"ALONE names what is not there: {gone}"
    for item in items:
        if any(item.path.is_relative_to(place) for place in places):
            item.add_marker("alone")


def make_cells(
    sparsities: tuple[float, ...] = (0.8, 0.9),
    cases: tuple[str, ...] = ("linear-1024",),
    passes: tuple[str, ...] = ("forward",),
    variants: tuple[str, ...] = tuple(TIMES),
    blocks: int = 5,
    **changes: Any,
) -> list[CellInfo]:
    """Kernel cells over cases, passes and sparsities."""
    return [
        CellInfo(
            case=case,
            kind="kernel",
            op="linear",
            cell={"sparsity": sparsity, "pass": what, "threads": 1},
            version="v1",
            title=f"linear 1024->1024 batch 128 at {sparsity:g}, {what}",
            blocks=blocks,
            useful_flop=2 * 1024 * 1024 * 128 * (1 - sparsity),
            dense_flop=2 * 1024 * 1024 * 128,
            variants=list(variants),
            baseline="torch-dense",
            **changes,
        )
        for case in cases
        for what in passes
        for sparsity in sparsities
    ]


def make_run(
    cells: list[CellInfo] | None = None,
    times: Mapping[str, float] = TIMES,
    *,
    seed: int = 0,
    block_sd: float = 0.015,
    round_sd: float = 0.02,
    drift: float = 0.2,
    host_speed: float = 1.0,
    rounds: int = 12,
    change: Callable[[Sample], Sample | None] = lambda sample: sample,
    host: Mapping[str, Any] = HOST,
    **info: Any,
) -> Run:
    """A run in memory: times[variant] · host_speed · drift of the block · noise of the variant's block and round.

    `change` may replace a sample, or drop it by None.
    """
    draw = random.Random(seed)
    cells = make_cells() if cells is None else cells
    samples = []
    for block in range(max((c.blocks for c in cells), default=0)):
        speed = host_speed * draw.lognormvariate(0, drift)
        for cell in cells:
            wave = [draw.lognormvariate(0, round_sd) for _ in range(rounds)]
            for variant in cell.variants:
                centre = times[variant] * speed * draw.lognormvariate(0, block_sd)
                sample = Sample(
                    case=cell.case,
                    cell=cell.cell,
                    variant=variant,
                    block=block,
                    status="ok",
                    t_ns=[centre * w * draw.lognormvariate(0, round_sd) for w in wave],
                    loops=5,
                    verify={"max_rel_err": 1e-7, "tolerance": 1e-5},
                )
                changed = change(sample) if block < cell.blocks else None
                samples += [changed] if changed is not None else []
    head = {"id": f"run-{seed}", "argv": ["sparsebench", "run", "suite-cpu"], "started": "2026-11-20T23:00:00+00:00"}
    head |= {"suite": {"name": "suite-cpu"}, "host": dict(host), "cells": cells} | info
    return Run(RunInfo(**head), tuple(samples), (), Path("runs") / f"run-{seed}")


@pytest.fixture
def cells_of() -> Callable[..., list[CellInfo]]:
    return make_cells


@pytest.fixture
def run_of() -> Callable[..., Run]:
    return make_run


class NoWorkers:
    """In place of the crew of a block."""

    def __init__(self, plan: Any, folder: Path, block: int, *rest: object, **named: object) -> None:
        self.block, self.spent = block, {"timed_ns": 3, "checked_ns": 2}

    def __enter__(self) -> NoWorkers:
        return self

    def __exit__(self, *exc: object) -> None: ...


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., list[Sample]]], None]:
    """Lets runs have no workers: what they would measure is what the function given says."""
    from sparsebench.harness import runner

    def instead(measure: Callable[..., list[Sample]]) -> None:
        monkeypatch.setattr(runner, "Crew", NoWorkers)
        monkeypatch.setattr(runner.one_block, "measure", measure)

    return instead
