"""Records blocks of the three plants for test_replay.py: `python tests/ci/record.py`, three minutes on a quiet machine.

What is kept are the samples alone; nothing is decided meanwhile, so there are as many blocks as a verdict can need.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
from conftest import PLANTS, scratch  # it stands beside this script

from sparsebench.harness.duelling import DuelRunner
from sparsebench.harness.plan import Selection
from sparsebench.harness.session import Silent, plan_duel
from sparsebench.runs.records import Sample
from sparsebench.runs.store import read_run

RECORDED = Path(__file__).parent / "recorded"
BLOCKS, WRONG_RUNS = 30, 5  # what is wrong has one block a run


def record(plant: str, number: int, blocks: int) -> tuple[Sample, ...]:
    """The samples of one `ab` in a scratch repository."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(scratch(Path(folder), plant))
        session = plan_duel("my_suite.toml", "main:my_kernel.py", "my_kernel.py", Selection(), out=Path(folder) / "run")
        with session.open() as writer:
            DuelRunner(session.plan, writer, Silent(), looks=(blocks,)).run()
        samples = read_run(writer.folder).samples
        os.chdir(RECORDED)
    return tuple(msgspec.structs.replace(s, block=s.block + number) for s in samples)


def all_of(plant: str) -> Iterator[Sample]:
    """As many blocks as there shall be."""
    for number in range(WRONG_RUNS if plant == "wrong" else 1):
        yield from record(plant, number, BLOCKS)


if __name__ == "__main__":
    RECORDED.mkdir(exist_ok=True)
    for plant in PLANTS:
        lines = [msgspec.json.encode(sample) + b"\n" for sample in all_of(plant)]
        (RECORDED / f"{plant}.jsonl").write_bytes(b"".join(lines))
