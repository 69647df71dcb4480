"""Recorded blocks of real runs, in another order each time: 20 of 20 end as they must, without a clock.

`record.py` says how they were recorded.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sparsebench.harness.cells import Cell
from sparsebench.harness.duelling import DuelRunner
from sparsebench.harness.plan import Plan, Selection
from sparsebench.harness.runner import new_info
from sparsebench.harness.session import Silent
from sparsebench.harness.sides import duel_plan, side_of
from sparsebench.harness.suite import parse_suite
from sparsebench.registry import load_registry
from sparsebench.runs.duel import FAIL_ON, duels_of, worst
from sparsebench.runs.records import Sample
from sparsebench.runs.store import RunWriter, read_run

RECORDED = Path(__file__).parent / "recorded"
SIDES = ("main:my_kernel.py", "my_kernel.py")
Pretend = Callable[..., None]
Blocks = list[dict[str, Sample]]  # of each, side -> sample


def recorded(plant: str) -> Blocks:
    lines = (RECORDED / f"{plant}.jsonl").read_bytes().splitlines()
    samples = [msgspec.json.decode(line, type=Sample) for line in lines]
    blocks: dict[int, dict[str, Sample]] = {}
    for sample in samples:
        blocks.setdefault(sample.block, {})[sample.variant] = sample
    return list(blocks.values())


@pytest.fixture(scope="module")
def plan() -> Plan:
    """One cell with two variants, as the recorded one had; who they are does not matter."""
    text = (
        'schema = 1\n[suite]\nname = "gate"\n[[kernel]]\nname = "layer"\nop = "linear"\nout_features = 512\n'
        "in_features = 512\nbatch = 128\nsparsity = 0.9\n"
    )
    registry = load_registry()
    return duel_plan(parse_suite(text, "gate"), [side_of("cython"), side_of("cpp")], registry, Selection())


def replay(pretend: Pretend, plan: Plan, folder: Path, blocks: Blocks) -> int:
    """The exit code of an `ab` that meets these blocks in this order, and again from the first if it needs more."""

    def measure(
        crew: Any, cell: Cell, variants: Sequence[str], run_id: str, session: int, times: int = 1
    ) -> list[Sample]:
        block = blocks[crew.block % len(blocks)]
        names = zip(variants, SIDES, strict=True)
        where = {"case": cell.case.name, "cell": dict(cell.axes), "block": crew.block, "session": session}
        return [msgspec.structs.replace(block[side], variant=name, **where) for name, side in names]

    pretend(measure)
    with RunWriter.create(folder, new_info(plan, load_registry(), {})) as writer:
        DuelRunner(plan, writer, Silent()).run()
    return worst(duels_of(read_run(folder)), FAIL_ON)


@pytest.mark.parametrize(("plant", "code"), [("slower", 1), ("wrong", 3), ("unchanged", 0)])
def test_twenty_of_twenty_end_as_they_must(pretend: Pretend, tmp_path: Path, plan: Plan, plant: str, code: int) -> None:
    blocks = recorded(plant)
    ends = []
    for seed in range(20):
        order = random.Random(seed).sample(blocks, len(blocks))
        ends.append(replay(pretend, plan, tmp_path / str(seed), order))
    assert ends == [code] * 20


def test_the_recorded_ones_are_told_apart_by_their_samples(pretend: Pretend, tmp_path: Path, plan: Plan) -> None:
    """The twin: with the sides exchanged the slower one is faster, and passes."""
    first, second = SIDES
    turned = [{first: block[second], second: block[first]} for block in recorded("slower")]
    assert replay(pretend, plan, tmp_path / "turned", turned) == 0
