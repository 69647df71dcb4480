"""A run from its first row to its last, with workers that only pretend: what is asked again, and what never is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from sparsebench.harness.cells import Cell
from sparsebench.harness.plan import Plan
from sparsebench.harness.runner import PATIENCE, Runner, new_info
from sparsebench.registry import Registry
from sparsebench.runs.records import Sample
from sparsebench.runs.store import RunWriter, read_run

CASES = """
[[kernel]]
name = "wide"
op = "linear"
out_features = 8
in_features = 6
sparsity = [0.8, 0.9]
pass = ["forward", "both"]
backends = ["csr", "lacking"]

[[kernel]]
name = "long"
op = "linear"
out_features = 6
in_features = 8
blocks = 1
backends = ["csr"]
"""
Becomes = Callable[[Cell, str, int], str]  # (cell, variant, block) -> status


class World:
    """What workers would do: `log` names the rows in the order asked; `becomes` says how each ends."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.becomes: Becomes = lambda *_: "ok"
        self.interrupt_after: int | None = None

    def measure(
        self, crew: Any, cell: Cell, variants: Sequence[str], run_id: str, session: int, times: int = 1
    ) -> list[Sample]:
        if self.interrupt_after is not None and len(self.log) >= self.interrupt_after:
            raise KeyboardInterrupt
        samples = []
        for name in variants:
            self.log.append(f"{crew.block} {cell.case.name} {cell.axes['sparsity']} {cell.axes['pass']} {name}")
            status = self.becomes(cell, name, crew.block)
            made = Sample(case=cell.case.name, cell=dict(cell.axes), variant=name, block=crew.block,
                          status=status, session=session)  # type: ignore[arg-type]  # fmt: skip
            made.t_ns = [1.0, 2.0] if status == "ok" else []
            made.reason = None if status == "ok" else f"{status} of {name}"
            samples.append(made)
        return samples


class Silent:
    """Counts what it is told."""

    def __init__(self) -> None:
        self.begun: tuple[int, int] = (0, 0)
        self.cells = self.finished = 0

    def begin(self, total: int, done: int) -> None:
        self.begun = (total, done)

    def cell(self, cell: Cell, block: int) -> None:
        self.cells += 1

    def done(self, samples: Sequence[Sample]) -> None:
        self.finished += 1


@pytest.fixture
def world(pretend: Callable[..., None]) -> World:
    made = World()
    pretend(made.measure)
    return made


@pytest.fixture
def plan(planned: Callable[..., Plan]) -> Plan:
    return planned(CASES, head="blocks = 3")


@pytest.fixture
def begin(plan: Plan, registry: Registry, tmp_path: Path) -> Iterator[Callable[[], Silent]]:
    """Begins the run in tmp_path, or goes on with it."""

    def go() -> Silent:
        folder = tmp_path / "run"
        info = new_info(plan, registry, {"selection": {}})
        listener = Silent()
        with RunWriter.resume(folder) if folder.exists() else RunWriter.create(folder, info) as writer:
            Runner(plan, writer, listener).run()
        return listener

    yield go


Begin = Callable[[], Silent]


def rows(folder: Path) -> list[str]:
    """Every sample in short, in the order written."""
    return [
        f"{s.block} {s.case} {s.cell['sparsity']} {s.cell['pass']} {s.variant} {s.status}"
        for s in read_run(folder / "run").samples
    ]


def lines(folder: Path) -> bytes:
    return (folder / "run" / "samples.jsonl").read_bytes()


def test_every_row_of_every_block_is_measured_once(begin: Begin, world: World, tmp_path: Path) -> None:
    listener = begin()
    assert len(world.log) == len(set(world.log)) == 3 * 4 * 2 + 1 * 1 * 2
    assert listener.begun == (3 * 4 + 1, 0)
    assert listener.finished == listener.cells == 3 * 4 + 1
    written = rows(tmp_path)
    assert sorted(row.rpartition(" ")[0] for row in written if row.endswith("ok")) == sorted(world.log)


def test_what_cannot_run_is_written_first_with_its_reason(begin: Begin, world: World, tmp_path: Path) -> None:
    begin()
    barred = rows(tmp_path)[:4]
    assert [row.partition(" ")[2] for row in barred] == [
        "wide 0.8 forward lacking skipped",
        "wide 0.8 both lacking skipped",
        "wide 0.9 forward lacking skipped",
        "wide 0.9 both lacking skipped",
    ]


def test_blocks_come_one_after_the_other_and_passes_of_a_problem_stay_together(begin: Begin, world: World) -> None:
    begin()
    blocks = [line.split()[0] for line in world.log]
    assert blocks == sorted(blocks)
    for block in "012":
        mine = [line.split()[1:4] for line in world.log if line.startswith(block)]
        groups = list(dict.fromkeys((case, sparsity) for case, sparsity, _ in mine))
        assert [(case, sparsity) for case, sparsity, _ in mine] == sorted(
            ((case, sparsity) for case, sparsity, _ in mine), key=groups.index
        )


def test_the_order_of_cells_is_drawn_from_run_and_block(plan: Plan, world: World, run_of: Any) -> None:
    class Writer:
        def __init__(self, run_id: str) -> None:
            self.info = run_of(id=run_id).info
            self.run = run_of([])

    def order(run_id: str, block: int) -> list[str]:
        made = Runner(plan, Writer(run_id), Silent())  # type: ignore[arg-type]
        return [cell.key for cell in made._shuffled(plan.cells, block)]

    assert order("a", 0) == order("a", 0)
    assert len({tuple(order("a", block)) for block in range(20)}) > 1
    assert len({tuple(order(name, 0)) for name in "abcdefghij"}) > 1


def test_a_row_that_failed_once_is_not_tried_again_and_the_others_go_on(
    begin: Begin, world: World, tmp_path: Path
) -> None:
    world.becomes = lambda cell, name, block: "wrong" if name == "csr" and cell.axes["sparsity"] == 0.9 else "ok"
    begin()
    tried = [line for line in world.log if "0.9" in line and line.endswith("csr")]
    assert sorted(line.partition(" ")[2] for line in tried) == [
        "long 0.9 both csr",
        "wide 0.9 both csr",
        "wide 0.9 forward csr",
    ]
    assert sum("0.9" in line and "wide" in line and line.endswith("dense") for line in world.log) == 6


def test_contaminated_is_tried_again_in_the_next_block(begin: Begin, world: World) -> None:
    world.becomes = lambda cell, name, block: "contaminated"
    begin()
    assert len(world.log) == 26


def test_who_hangs_too_often_is_given_up(planned: Callable[..., Plan], registry: Registry, tmp_path: Path,
                                         world: World) -> None:  # fmt: skip
    case = '[[kernel]]\nname = "many"\nop = "linear"\nout_features = 8\nin_features = 6\nbackends = ["csr"]\n'
    plan = planned(f"{case}sparsity = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]\nblocks = 2")
    world.becomes = lambda cell, name, block: "timeout" if name == "csr" else "ok"
    with RunWriter.create(tmp_path / "run", new_info(plan, registry, {})) as writer:
        Runner(plan, writer, Silent()).run()
    assert sum(line.endswith("csr") for line in world.log) == PATIENCE
    assert sum(line.endswith("dense") for line in world.log) == 12
    samples = [s for s in read_run(tmp_path / "run").samples if s.variant == "csr"]
    assert [s.status for s in samples] == ["timeout"] * 6
    told = [s.reason for s in samples if "not tried" in (s.reason or "")]
    assert told == [f"not tried: it hung in {PATIENCE} cells before"] * (6 - PATIENCE)


def test_a_finished_run_has_nothing_left_to_do(begin: Begin, world: World, tmp_path: Path) -> None:
    begin()
    before, world.log = lines(tmp_path), []
    listener = begin()
    assert world.log == []
    assert listener.begun == (13, 13)
    assert lines(tmp_path) == before


@pytest.mark.parametrize("after", [0, 1, 7, 13, 24])
def test_an_interrupted_run_goes_on_where_it_was(begin: Begin, world: World, tmp_path: Path, after: int) -> None:
    world.interrupt_after = after
    with pytest.raises(KeyboardInterrupt):
        begin()
    before, asked = lines(tmp_path), [*world.log]
    world.interrupt_after = None
    begin()
    assert lines(tmp_path).startswith(before)
    assert len(world.log) == len(set(world.log)) == 26
    assert world.log[: len(asked)] == asked
    assert len(rows(tmp_path)) == len(set(rows(tmp_path))) == 26 + 4
    sessions = [s.session for s in read_run(tmp_path / "run").samples]
    assert sessions == sorted(sessions)
    assert not (tmp_path / "run" / "oracles").exists()


def test_a_failure_is_remembered_by_the_run_that_goes_on(begin: Begin, world: World, tmp_path: Path) -> None:
    world.becomes = lambda cell, name, block: "crash" if name == "csr" else "ok"
    world.interrupt_after = 8
    with pytest.raises(KeyboardInterrupt):
        begin()
    world.interrupt_after, world.log = None, []
    failed = {row.rpartition(" ")[0].partition(" ")[2] for row in rows(tmp_path) if row.endswith("crash")}
    begin()
    assert failed
    assert not failed & {line.partition(" ")[2] for line in world.log}


def test_a_torn_last_line_is_cut_said_and_measured_again(begin: Begin, world: World, tmp_path: Path) -> None:
    begin()
    whole = lines(tmp_path)
    torn = whole[:-30]
    (tmp_path / "run" / "samples.jsonl").write_bytes(torn)
    with RunWriter.resume(tmp_path / "run") as writer:
        assert writer.problems == ("samples.jsonl line 30: torn (no end of line), skipped",)
    world.log = []
    begin()
    assert len(world.log) == 1
    kept = torn[: torn.rindex(b"\n") + 1]
    assert lines(tmp_path).startswith(kept)
    assert read_run(tmp_path / "run").problems == ()
    assert len(rows(tmp_path)) == 30


def test_a_corrupt_line_is_said_left_and_measured_again(begin: Begin, world: World, tmp_path: Path) -> None:
    begin()
    file = tmp_path / "run" / "samples.jsonl"
    damaged = file.read_bytes().split(b"\n")
    lost = json.loads(damaged[10])
    damaged[10] = b"\0" * len(damaged[10])
    file.write_bytes(b"\n".join(damaged))
    world.log = []
    begin()
    again = f"{lost['block']} {lost['case']} {lost['cell']['sparsity']} {lost['cell']['pass']} {lost['variant']}"
    assert world.log == [again]
    assert lines(tmp_path).startswith(b"\n".join(damaged))
    assert [p.partition(":")[0] for p in read_run(tmp_path / "run").problems] == ["samples.jsonl line 11"]
    assert len(rows(tmp_path)) == 30


def test_a_row_that_cannot_run_is_not_lost_with_its_line(begin: Begin, world: World, tmp_path: Path) -> None:
    begin()
    file = tmp_path / "run" / "samples.jsonl"
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:2]))  # of four such rows, two are left
    begin()
    assert sum(row.endswith("lacking skipped") for row in rows(tmp_path)) == 4
    assert len(set(rows(tmp_path))) == len(rows(tmp_path)) == 30
