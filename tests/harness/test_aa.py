"""`doctor --aa` with workers that only pretend: what is equal, what was slowed, what is wrong are each counted."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from sparsebench.cli import doctor_aa
from sparsebench.cli.progress import Progress
from sparsebench.errors import RunError
from sparsebench.harness import aa
from sparsebench.harness.cells import Cell
from sparsebench.harness.lanes import Lanes
from sparsebench.harness.session import Silent
from sparsebench.registry import load_registry
from sparsebench.runs.records import Sample

Pretend = Callable[..., None]


class World:
    """What a variant's time is a multiple of, and the cases that were met."""

    def __init__(self, **factors: float) -> None:
        self.factors = {aa.BACKEND: 1.0, aa.AGAIN: 1.0, aa.SLOWER: 1 + aa.PERCENT / 100, **factors}
        self.met: list[str] = []
        self.slowed: list[str] = []
        self.draw = random.Random(3)

    def measure(
        self, crew: Any, cell: Cell, variants: Sequence[str], run_id: str, number: int, times: int = 1
    ) -> list[Sample]:
        if crew.block == 0:
            self.met.append(cell.case.name)
            self.slowed += [cell.case.name for name in variants if name.startswith(aa.SLOWER)]
        made = []
        for name in variants:
            times = [5e6 * self.factors[name.partition("-")[0]] * self.draw.lognormvariate(0, 0.005) for _ in range(12)]
            made.append(
                Sample(case=cell.case.name, cell=dict(cell.axes), variant=name, block=crew.block, session=number,
                       status="ok", t_ns=times)
            )  # fmt: skip
        return made


def measured(pretend: Pretend, world: World, comparisons: int) -> list[dict[str, Any]]:
    """What is known after each group of experiments."""
    pretend(world.measure)
    return [dict(trust.facts()) for trust in aa.trials(comparisons, load_registry())]


def test_equal_pairs_are_the_same_and_what_was_slowed_is_found(pretend: Pretend) -> None:
    world = World()
    *_, known = measured(pretend, world, 12)
    assert (known["comparisons"], known["same"], known["false_alarms"]) == (12, 12, 0)
    assert (known["trials"], known["found_slower"], known["called_faster"], known["power"]) == (4, 4, 0, 1.0)
    low, high = known["false_alarm_interval"]
    assert (low, round(high, 3)) == (0.0, 0.265), "no alarm in 12 says little: 1 - 0.025 ** (1 / 12)"
    assert (len(world.met), len(world.slowed)) == (12, 4)


def test_every_case_has_its_turn_to_be_slowed(pretend: Pretend) -> None:
    world = World()
    *_, known = measured(pretend, world, 200)
    slowed = [name.partition("-")[0] for name in world.slowed]
    assert (known["comparisons"], known["trials"], len(slowed)) == (200, 60, 60)
    assert {case: slowed.count(case) for case in aa.CASES} == dict.fromkeys(aa.CASES, 8) | {"stream": 4}


def test_a_side_that_is_decided_is_not_measured_while_the_other_goes_on(pretend: Pretend) -> None:
    """The first of a cell's variants is measured as long as any other is compared with it."""
    world, torn, seen = World(), random.Random(1), Counter[tuple[str, ...]]()

    def measure(
        crew: Any, cell: Cell, variants: Sequence[str], run_id: str, number: int, times: int = 1
    ) -> list[Sample]:
        world.factors[aa.AGAIN] = torn.choice((0.8, 1.25))
        if cell.case.name == "square-0":
            seen[tuple(name.partition("-")[0] for name in variants)] += 1
        return world.measure(crew, cell, variants, run_id, number)

    pretend(measure)
    (trust,) = aa.trials(1, load_registry())
    assert trust.facts()["found_slower"] == 1
    assert seen == {(aa.BACKEND, aa.AGAIN, aa.SLOWER): 10, (aa.BACKEND, aa.AGAIN): 20}


def test_what_is_found_where_nothing_is_counts_as_an_alarm(pretend: Pretend) -> None:
    """The twin: a machine on which two equal things differ is told so."""
    *_, known = measured(pretend, World(again=1.08), 10)
    assert (known["false_alarms"], known["false_alarm_rate"]) == (10, 1.0)
    *_, known = measured(pretend, World(slower=0.9), 5)
    assert (known["called_faster"], known["power"]) == (2, 0.0)


def test_it_says_more_after_each_group_of_experiments(pretend: Pretend) -> None:
    said = [known["comparisons"] for known in measured(pretend, World(), 213)]
    assert len(said) == 5
    assert said[-1] == 213
    assert sorted(after - before for before, after in pairwise([0, *said])) == [13, 50, 50, 50, 50]


def test_each_group_has_a_core_of_its_own_and_the_rest_stays_as_it_was(
    pretend: Pretend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two at once: each begins only when both have begun, and neither may run where the other does."""
    allowed = os.sched_getaffinity(0)
    monkeypatch.setattr(aa, "cores_apart", lambda: sorted(allowed)[:2])
    world, together, cores = World(), threading.Barrier(min(2, len(allowed)), timeout=60), set[tuple[int, ...]]()

    def measure(
        crew: Any, cell: Cell, variants: Sequence[str], run_id: str, number: int, times: int = 1
    ) -> list[Sample]:
        if crew.block == 0:
            together.wait()
        cores.add(tuple(os.sched_getaffinity(0)))
        return world.measure(crew, cell, variants, run_id, number)

    pretend(measure)
    (*_, trust) = aa.trials(20, load_registry())
    assert trust.comparisons == 20
    assert cores == {(core,) for core in sorted(allowed)[:2]}
    assert os.sched_getaffinity(0) == allowed


def test_no_experiment_has_the_workers_of_another(pretend: Pretend) -> None:
    experiments = [aa.Experiment.of(number, 200) for number in range(40)]
    sides = {case: each.variants(case) for each in experiments for case in each.cases()}
    assert (len(sides), sum(map(len, sides.values()))) == (200, 460)
    for case, names in sides.items():
        assert {name.rpartition("-")[2] for name in names} == {case.rpartition("-")[2]}


def test_what_failed_says_nothing_of_alarms(pretend: Pretend, capsys: pytest.CaptureFixture[str]) -> None:
    """200 comparisons that all failed are no 200 comparisons without a false alarm."""
    world = World()
    equal = aa.Trust(equal=Counter(failed=200), slowed=Counter(wrong=80))
    known = equal.facts()
    assert (known["comparisons"], known["trials"], known["failed"]) == (0, 0, 280)
    assert known["false_alarm_interval"] == pytest.approx([0.0, 0.975]), "nothing is known"

    def fail(crew: Any, cell: Cell, variants: Sequence[str], run_id: str, number: int, times: int = 1) -> list[Sample]:
        made = world.measure(crew, cell, variants, run_id, number)
        return [msgspec.structs.replace(sample, status="crash", t_ns=[], reason="no luck") for sample in made]

    pretend(fail)
    assert doctor_aa.measure(5, as_json=True) == 4
    assert json.loads(capsys.readouterr().out)["failed"] == 7
    pretend(world.measure)
    assert doctor_aa.measure(5, as_json=True) == 0


@pytest.mark.parametrize(("why", "code"), [(KeyboardInterrupt(), 130), (RunError("the disk is full"), 2)])
def test_what_ended_before_it_was_stopped_is_told(
    pretend: Pretend, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], why: BaseException, code: int
) -> None:
    world, groups, first_said = World(), {1, 2, 3}, threading.Event()

    def stop(crew: Any, cell: Cell, variants: Sequence[str], run_id: str, number: int, times: int = 1) -> list[Sample]:
        if int(cell.case.name.rpartition("-")[2]) // aa.GROUP in groups:
            assert first_said.wait(60)
            raise why
        return world.measure(crew, cell, variants, run_id, number)

    def say(*words: Any, **options: Any) -> None:
        print(*words, file=sys.stderr if options.get("err") else sys.stdout)
        first_said.set()

    monkeypatch.setattr(doctor_aa.click, "echo", say)
    monkeypatch.setattr(Progress, "_say", lambda *_: None)

    pretend(stop)
    assert doctor_aa.measure(200, as_json=True) == code
    out, err = capsys.readouterr()
    assert json.loads(out)["comparisons"] == 50
    assert f"{str(why) or 'interrupted'}: what follows is of the experiments that ended" in err
    groups.add(0)
    with pytest.raises(type(why)):
        doctor_aa.measure(200, as_json=True)


def test_who_no_longer_waits_ends_what_still_runs(pretend: Pretend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C comes to the thread that waits; the others learn of it at their next cell."""
    core = min(os.sched_getaffinity(0))
    monkeypatch.setattr(aa, "cores_apart", lambda: [core, core])
    monkeypatch.setattr(aa, "cpu_quota", lambda: None)
    world, cells, begun = World(), Counter[int](), threading.Event()

    def measure(
        crew: Any, cell: Cell, variants: Sequence[str], run_id: str, number: int, times: int = 1
    ) -> list[Sample]:
        group = int(cell.case.name.rpartition("-")[2]) // aa.GROUP
        cells[group] += 1
        if group == 0:
            assert begun.wait(60)
        else:
            begun.set()
            time.sleep(0.05)  # slower than the first group, which ends meanwhile
        return world.measure(crew, cell, variants, run_id, number)

    pretend(measure)
    known = aa.trials(200, load_registry())
    assert next(known).attempts == 50
    known.close()
    assert 0 < cells[1] < cells[0], "the second group was not left to end"
    assert cells[3] == 0, "it had not begun"
    after = cells.copy()
    time.sleep(0.2)
    assert cells == after, "nothing goes on"
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ThreadPoolExecutor")]


def test_a_quota_of_one_core_is_not_shared_by_two(pretend: Pretend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two would throttle each other."""
    core = min(os.sched_getaffinity(0))
    monkeypatch.setattr(aa, "cores_apart", lambda: [core, core])
    for quota, expected in ((None, 2), (1.5, 1), (0.5, 1), (8.0, 2)):
        monkeypatch.setattr(aa, "cpu_quota", lambda quota=quota: quota)
        threads = set[int]()
        world = World()

        def measure(
            crew: Any, cell: Cell, variants: Sequence[str], run_id: str, number: int, times: int = 1,
            world: World = world, threads: set[int] = threads,
        ) -> list[Sample]:  # fmt: skip
            threads.add(threading.get_ident())
            time.sleep(0.002)
            return world.measure(crew, cell, variants, run_id, number)

        pretend(measure)
        (*_, trust) = aa.trials(20, load_registry())
        assert (trust.comparisons, len(threads)) == (20, expected)


def test_what_a_lane_starts_is_on_its_core() -> None:
    """A process that a lane starts, as a fork server is; the thread that opened the lanes keeps its cores."""
    allowed = os.sched_getaffinity(0)
    program = "import os; print(*os.sched_getaffinity(0))"

    def start(_: int) -> str:
        return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    core = max(allowed)
    with Lanes([core], Silent()) as lanes:
        assert {*lanes.run(start, range(2))} == {f"{core}\n"}
    assert os.sched_getaffinity(0) == allowed
