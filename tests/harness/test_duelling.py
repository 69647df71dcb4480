"""An `ab` with workers that only pretend: looks at 10, 15, 20 and 30 blocks, what is decided left alone, an end."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from sparsebench.errors import UsageError
from sparsebench.harness.cells import Cell
from sparsebench.harness.duelling import DuelRunner, looks_within, most_blocks
from sparsebench.harness.plan import Selection
from sparsebench.harness.runner import new_info
from sparsebench.harness.session import Silent
from sparsebench.harness.sides import duel_plan, side_of
from sparsebench.harness.suite import parse_suite
from sparsebench.registry import load_registry
from sparsebench.runs.duel import Duel, duels_of, worst
from sparsebench.runs.records import Sample
from sparsebench.runs.store import Run, RunWriter, read_run
from sparsebench.runs.verdicts import judge_pairs, settled

SUITE = """
schema = 1
[suite]
name = "two"
[[kernel]]
name = "one"
op = "linear"
out_features = 8
in_features = 6
[[kernel]]
name = "other"
op = "linear"
out_features = 6
in_features = 8
"""
NS = 5e6
Pretend = Callable[..., None]
Ratio = Callable[[Cell, int], float]  # time of B over time of A, in a cell and block


def duel(
    pretend: Pretend,
    folder: Path,
    ratio: Ratio,
    change: Callable[[Sample], Sample] = lambda s: s,
    barred: Sequence[str] = (),
    note: Callable[[Cell, Sequence[str]], None] = lambda *_: None,
    most: int | None = None,
    asked: list[tuple[str, int, int]] | None = None,
) -> tuple[dict[str, Duel], dict[str, list[int]]]:
    """What came out by case, and the blocks in which each was measured; who is `barred` cannot do the case "one"."""
    blocks: dict[str, list[int]] = {}
    draw = random.Random(0)

    def measure(
        crew: Any, cell: Cell, variants: Sequence[str], run_id: str, session: int, times: int = 1
    ) -> list[Sample]:
        blocks.setdefault(cell.case.name, []).append(crew.block)
        if asked is not None:
            asked.append((cell.case.name, crew.block, times))
        note(cell, variants)
        level, made = draw.lognormvariate(0, 0.2), []
        factors = {"cython": 1.0, "cpp": ratio(cell, crew.block)}
        for name in variants:
            laps = [NS * level * factors[name] * draw.lognormvariate(0, 0.002) for _ in range(12)]
            made.append(
                change(Sample(case=cell.case.name, cell=dict(cell.axes), variant=name, block=crew.block, status="ok",
                              session=session, t_ns=laps))
            )  # fmt: skip
        return made

    pretend(measure)
    registry = load_registry()
    plan = duel_plan(
        parse_suite(SUITE, "two.toml"), [side_of("cython"), side_of("cpp")], registry, Selection(blocks=most)
    )
    for cell, name in [(c, n) for c in plan.cells for n in barred if c.case.name == "one"]:
        plan.bar(cell, name, "unsupported", "no such layer")
    with RunWriter.create(folder, new_info(plan, registry, {})) as writer:
        DuelRunner(plan, writer, Silent(), looks=looks_within(most)).run()
    return {each.case: each for each in duels_of(read_run(folder))}, blocks


def test_what_is_clear_is_decided_at_the_first_look(pretend: Pretend, tmp_path: Path) -> None:
    found, blocks = duel(pretend, tmp_path / "run", lambda cell, _: 1.2 if cell.case.name == "one" else 1.0)
    assert {case: each.verdict for case, each in found.items()} == {"one": "slower", "other": "same"}
    assert {case: len(seen) for case, seen in blocks.items()} == {"one": 10, "other": 10}
    assert found["one"].judgement is not None and found["one"].judgement.change == pytest.approx(1.2, rel=0.01)
    assert worst(found.values(), frozenset({"slower"})) == 1 and worst(found.values(), frozenset()) == 0


def test_what_is_not_goes_on_to_the_last_look_alone(pretend: Pretend, tmp_path: Path) -> None:
    def torn(cell: Cell, block: int) -> float:
        return 1.0 if cell.case.name == "other" else (1.1 if block % 2 else 0.95)

    found, blocks = duel(pretend, tmp_path / "run", torn)
    assert found["one"].verdict == "inconclusive" and found["one"].reason == (
        "the interval reaches across the margin of 3.0% after 30 blocks, the most: a wider margin or a quieter machine "
        "decides it"
    )
    assert {case: len(seen) for case, seen in blocks.items()} == {"one": 30, "other": 10}
    assert worst(found.values(), frozenset({"inconclusive"})) == 5


def test_blocks_that_are_lost_are_made_up_for(pretend: Pretend, tmp_path: Path) -> None:
    def spoil(sample: Sample) -> Sample:
        sample.status = "contaminated" if sample.block < 4 else "ok"
        return sample

    found, blocks = duel(pretend, tmp_path / "run", lambda *_: 1.2, spoil)
    assert found["one"].verdict == "slower" and found["one"].blocks_dropped == 4
    assert len(blocks["one"]) == 14


def test_a_machine_that_is_never_quiet_gets_no_verdict_and_an_end(pretend: Pretend, tmp_path: Path) -> None:
    def spoil(sample: Sample) -> Sample:
        sample.status = "contaminated"
        return sample

    found, blocks = duel(pretend, tmp_path / "run", lambda *_: 1.2, spoil)
    assert found["one"].verdict == "inconclusive" and len(blocks["one"]) < most_blocks()


@pytest.mark.parametrize(("status", "verdict", "code"), [("wrong", "wrong", 3), ("crash", "failed", 4)])
def test_what_fails_has_no_time_and_ends_its_cell(
    pretend: Pretend, tmp_path: Path, status: Any, verdict: str, code: int
) -> None:
    def fail(sample: Sample) -> Sample:
        if sample.variant == "cpp" and sample.case == "one":
            sample.status, sample.t_ns, sample.reason = status, [], "no luck"
        return sample

    found, blocks = duel(pretend, tmp_path / "run", lambda *_: 1.0, fail)
    assert (found["one"].verdict, found["other"].verdict) == (verdict, "same")
    assert "no luck" in found["one"].reason and len(blocks["one"]) == 1
    assert worst(found.values(), frozenset({"wrong", "failed"})) == code


@pytest.mark.parametrize(("status", "verdict"), [("wrong", "fixed"), ("crash", "fixed"), ("ok", "faster")])
def test_who_mends_a_wrong_kernel_passes(pretend: Pretend, tmp_path: Path, status: Any, verdict: str) -> None:
    def fail(sample: Sample) -> Sample:
        if sample.variant == "cython" and status != "ok":
            sample.status, sample.t_ns, sample.reason = status, [], "no luck"
        return sample

    found, _ = duel(pretend, tmp_path / "run", lambda *_: 0.5, fail)
    assert found["one"].verdict == verdict
    assert found["one"].reason == (f"cython: {status}: no luck" if status != "ok" else "")
    assert worst(found.values(), frozenset({"wrong", "failed", "missing", "slower"})) == 0


@pytest.mark.parametrize(
    ("barred", "verdict", "code", "measured"),
    [("cpp", "missing", 1, []), ("cython", "new", 0, [["cpp"]]), ("cython cpp", "inconclusive", 0, [])],
)
def test_a_case_that_one_cannot_do(
    pretend: Pretend, tmp_path: Path, barred: str, verdict: str, code: int, measured: list[list[str]]
) -> None:
    """What B cannot do any more is missing; what A could not do is measured once, for that is what proves B right."""
    asked: list[list[str]] = []

    def note(cell: Cell, variants: Sequence[str]) -> None:
        if cell.case.name == "one":
            asked.append(list(variants))

    found, _ = duel(pretend, tmp_path / "run", lambda *_: 1.0, barred=barred.split(), note=note)
    assert (found["one"].verdict, found["other"].verdict, asked) == (verdict, "same", measured)
    assert "no such layer" in found["one"].reason
    assert worst(found.values(), frozenset({"wrong", "failed", "missing", "slower"})) == code


def test_what_is_wrong_in_a_new_case_is_wrong(pretend: Pretend, tmp_path: Path) -> None:
    def fail(sample: Sample) -> Sample:
        if sample.case == "one":
            sample.status, sample.t_ns, sample.reason = "wrong", [], "off by 2"
        return sample

    found, _ = duel(pretend, tmp_path / "run", lambda *_: 1.0, fail, barred=["cython"])
    assert (found["one"].verdict, "off by 2" in found["one"].reason) == ("wrong", True)


def test_a_number_of_blocks_that_is_no_look_decides_nothing(pretend: Pretend, tmp_path: Path) -> None:
    """Slower and faster in turn for 17 good blocks, then much slower; so many are lost that it ends after 24."""
    lost = {*range(15), 39}

    def late(cell: Cell | None, block: int) -> float:
        return (0.95 if block % 2 else 1.12) if block < 32 else 1.3

    def spoil(sample: Sample) -> Sample:
        sample.status = "contaminated" if sample.block in lost else "ok"
        return sample

    values = [math.log(late(None, block)) for block in range(15, 39)]
    assert judge_pairs(values, 0.03, NS).call == "slower", "the twin: what the 24 would say if they were looked at"
    assert settled(values, 0.03, [NS] * 24) is None
    found, blocks = duel(pretend, tmp_path / "run", late, spoil)
    assert (found["one"].verdict, len(blocks["one"])) == ("inconclusive", 40)
    assert found["one"].judgement is not None and found["one"].judgement.blocks == 24


def test_no_more_good_blocks_than_were_asked_for(pretend: Pretend, tmp_path: Path) -> None:
    """What is lost of them is made up for."""

    def spoil(sample: Sample) -> Sample:
        sample.status = "contaminated" if sample.block == 3 else "ok"
        return sample

    found, blocks = duel(pretend, tmp_path / "run", lambda _, block: 1.1 if block % 2 else 0.95, spoil, most=12)
    assert (found["one"].verdict, len(blocks["one"]), found["one"].blocks_dropped) == ("inconclusive", 11, 1)
    with pytest.raises(UsageError, match="--blocks 9: a verdict needs 10 good blocks"):
        looks_within(9)


PLUGIN = """
from sparsebench.plugin import BackendSpec, hookimpl
@hookimpl
def sparsebench_backends():
    return [BackendSpec(name=name, summary="one", load="a:B", ops=("linear",)) for name in {names}]
"""


def test_what_a_text_stands_for(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(PLUGIN.format(names=["first"]))
    assert side_of("cpp@isa=avx2").options == {"isa": "avx2"}
    two = side_of("cpp@isa=avx2,threads=2")
    assert (two.threads, two.options, two.label) == (2, {"isa": "avx2"}, "cpp@isa=avx2@threads=2")
    assert side_of(str(file)).entry.spec.name == "first"
    file.write_text(PLUGIN.format(names=["second", "third"]))
    assert side_of(f"{file}:third").entry.spec.name == "third"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cpq", "no backend is named 'cpq'.*cpp"),
        ("cpp@isa=avx3", "isa"),
        ("cpp@threads=0", "threads=N with N at least 1"),
        ("nowhere.py", "no such file"),
        ("no-such-revision:cpp", "no backend is named"),
    ],
)
def test_what_stands_for_nothing_is_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        side_of(text)


def test_of_several_backends_in_a_file_one_must_be_named(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(PLUGIN.format(names=["first", "second"]))
    with pytest.raises(UsageError, match=r"it has first, second; write .*mine.py:NAME"):
        side_of(str(file))


def test_a_thing_against_itself_is_told_apart() -> None:
    registry = load_registry()
    plan = duel_plan(parse_suite(SUITE, "two.toml"), [side_of("cpp"), side_of("cpp")], registry, Selection())
    assert plan.variants[plan.cells[0].key] == ["cpp", "cpp (again)"]
    with pytest.raises(UsageError, match="no cell in which backends compete matches -k 'nothing'; cases: one, other"):
        duel_plan(parse_suite(SUITE, "two.toml"), [side_of("cpp")] * 2, registry, Selection(expression="nothing"))


def test_two_classes_of_precision_are_marked(pretend: Pretend, tmp_path: Path) -> None:
    duel(pretend, tmp_path / "run", lambda cell, _: 0.5)
    stored = read_run(tmp_path / "run")
    names = stored.info.cells[0].variants
    stored.info.precision = dict(zip(names, ("float32", "bfloat16"), strict=True))
    for each in duels_of(stored):
        assert (each.verdict, each.reason) == ("faster", "A computes in float32 and B in bfloat16: not the same work")


def test_an_ab_that_stopped_between_two_looks_says_so(pretend: Pretend, tmp_path: Path) -> None:
    """Its interval may lie beyond the margin: that is no look, and no reason."""
    draw = random.Random(1)
    levels = [draw.choice((0.9, 1.1)) if number < 10 else 1.2 for number in range(40)]
    duel(pretend, tmp_path / "run", lambda cell, block: levels[block])
    stored = read_run(tmp_path / "run")
    samples = tuple(sample for sample in stored.samples if sample.block < 13)
    told = {each.reason for each in duels_of(Run(stored.info, samples, (), stored.path))}
    assert told == {"13 good blocks: not decided yet, and the next look is at 15"}


def test_what_a_look_did_not_decide_is_measured_in_twice_the_rounds(pretend: Pretend, tmp_path: Path) -> None:
    draw = random.Random(1)
    asked: list[tuple[str, int, int]] = []

    def torn(cell: Cell, block: int) -> float:
        return draw.choice((0.9, 1.1)) if cell.case.name == "one" else 1.0

    duel(pretend, tmp_path / "run", torn, asked=asked)
    assert {times for name, block, times in asked if name == "one" and block < 10} == {1}
    assert {times for name, block, times in asked if name == "one" and block >= 10} == {2}
    assert [times for name, _, times in asked if name == "other"] == [1] * 10
