"""A run with one row for each status given; two blocks of three rounds, of which round 1 of block 1 is dropped."""

from pathlib import Path

import pytest

from sparsebench.runs.records import CellInfo, RunInfo, Sample
from sparsebench.runs.store import Run


def make_run(statuses: dict[str, str], factor: float = 1.0) -> Run:
    """Variants take 2 ms; with `factor`, those that are not the baseline take so many times as long."""

    def scale(variant: str) -> float:
        return 1.0 if variant == "torch-dense" else factor

    cell = {"sparsity": 0.9, "pass": "forward"}
    info = CellInfo(case="linear", kind="kernel", cell=cell, version="1", title="linear 8->8", blocks=2,
                    variants=list(statuses), baseline="torch-dense")  # fmt: skip
    samples = tuple(
        Sample(case="linear", cell=cell, variant=variant, block=block, status=status, loops=7,
               t_ns=[scale(variant) * t for t in (1e6, 2e6, 3e6)] if status == "ok" else [],
               dropped=[1] if block else [])
        for block in range(2) for variant, status in statuses.items()
    )  # fmt: skip
    head = RunInfo(id="r1", argv=[], started="2026-11-20T23:00:00+00:00", suite={"name": "s"}, cells=[info])
    return Run(head, samples, (), Path("r1"))


@pytest.fixture
def small_run():
    return make_run
