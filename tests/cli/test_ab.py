"""`ab` from the command line, with workers that only pretend: exit codes, files, going on, showing again."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from sparsebench.harness import session
from sparsebench.harness.cells import Cell
from sparsebench.runs.records import Sample

Call = Callable[..., Any]
SUITE = """
schema = 1
[suite]
name = "one"
[[kernel]]
name = "layer"
op = "linear"
out_features = 8
in_features = 6
"""

KERNEL = """
from sparsebench.plugin import BackendSpec, hookimpl
@hookimpl
def sparsebench_backends():
    return [BackendSpec(name="mine", summary="one", load="a:B", ops=("linear",))]
"""


class World:
    """B takes `factor` times as long as A; a block in `stops` is interrupted."""

    factor = 1.2
    stops: frozenset[int] = frozenset()
    status: Any = "ok"

    def measure(
        self, crew: Any, cell: Cell, variants: Sequence[str], run_id: str, number: int, times: int = 1
    ) -> list[Sample]:
        if crew.block in self.stops:
            raise KeyboardInterrupt
        draw, made = random.Random(crew.block), []
        for name, factor in zip(variants, (1.0, self.factor), strict=True):
            times = [5e6 * factor * draw.lognormvariate(0, 0.002) for _ in range(12)]
            where = {"case": cell.case.name, "cell": dict(cell.axes), "variant": name, "block": crew.block}
            bad = self.status != "ok" and factor != 1.0
            said = {"status": self.status, "reason": "off by 2"} if bad else {"status": "ok", "t_ns": times}
            made.append(Sample(**where, session=number, **said))  # type: ignore[arg-type]
        return made


@pytest.fixture
def world(pretend: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    made = World()
    monkeypatch.setattr(session, "probe", lambda *_: None)
    monkeypatch.setattr(session, "measured_ceilings", lambda _: {})
    pretend(made.measure)
    (tmp_path / "one.toml").write_text(SUITE)
    monkeypatch.chdir(tmp_path)
    return made


AB = ("ab", "cython", "cpp", "--suite", "one.toml", "--out", "run")


def test_what_is_slower_fails_and_the_margin_that_was_used_is_shown(call: Call, world: World) -> None:
    code, out, err = call(*AB)
    assert (code, "1 slower" in out, "+20." in out) == (1, True, True), out
    assert "3.0 %" in out, "the margin"
    assert "Next: sparsebench report run" in err


@pytest.mark.parametrize(
    ("factor", "status", "more", "code"),
    [
        (1.0, "ok", [], 0),
        (0.8, "ok", [], 0),
        (1.2, "ok", ["--fail-on", "wrong"], 0),
        (1.2, "wrong", [], 3),
        (1.2, "crash", [], 4),
        (1.03, "ok", ["--blocks", "10", "--fail-on", "inconclusive"], 5),
    ],
)
def test_exit_codes(call: Call, world: World, factor: float, status: str, more: list[str], code: int) -> None:
    world.factor, world.status = factor, status
    assert call(*AB, *more).code == code


def test_files_are_written_and_the_page_of_the_job_too(
    call: Call, world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "page.md"))
    code, out, _ = call(*AB, "--save", "x/ab.md", "--save", "ab.json", "--format", "github")
    assert code == 1
    assert Path("x/ab.md").read_text().count("| slower") == 1
    assert [duel["verdict"] for duel in json.loads(Path("ab.json").read_text())] == ["slower"]
    assert Path("page.md").read_text().startswith("## sparsebench ab: 1 slower")
    (line,) = [line for line in out.splitlines() if line.startswith("::")]
    assert line.startswith("::error title=slower%3A cpp in layer::") and "against cython" in line


def test_an_interrupted_one_goes_on_where_it_was(call: Call, world: World) -> None:
    world.stops = frozenset({4})
    code, out, err = call(*AB)
    assert (code, "4 good blocks: a verdict needs 10" in out) == (130, True), out
    assert "Next: sparsebench ab --resume run" in err
    world.stops = frozenset()
    code, out, _ = call("ab", "--resume", "run")
    assert (code, "1 slower" in out) == (1, True), out
    blocks = [json.loads(line)["block"] for line in Path("run/samples.jsonl").read_text().splitlines()]
    assert sorted(blocks) == sorted([*range(10)] * 2), "none twice"


def test_one_whose_file_was_edited_is_not_gone_on_with(call: Call, world: World, tmp_path: Path) -> None:
    mine = Path("mine.py")
    mine.write_text(KERNEL)
    world.stops = frozenset({3})
    assert call("ab", "cython", "mine.py", "--suite", "one.toml", "--out", "run").code == 130
    world.stops = frozenset()
    mine.write_text(f"{KERNEL}# edited\n")
    code, _, err = call("ab", "--resume", "run")
    assert code == 2 and "the files or revisions compared changed since it began" in " ".join(err.split()), err
    mine.write_text(KERNEL)
    assert call("ab", "--resume", "run").code == 1


def test_it_can_be_shown_again(call: Call, world: World) -> None:
    first = call(*AB)
    again = call("report", "run")
    assert (again.out, again.err) == (first.out, "\nNext: sparsebench doctor --aa 20\n")
    assert [duel["verdict"] for duel in json.loads(call("report", "run", "--format", "json").out)] == ["slower"]
    assert call("report", "run", "--format", "csv").code == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("ab", "cython"), "ab needs two things to compare"),
        (("ab", "cython", "cpp", "--resume", "run"), "leave out A, B, -k"),
        (("ab", "--resume", "run", "--blocks", "20"), "leave out A, B, -k"),
        (("ab", "--resume", "run", "--suite", "suite-cpu"), "leave out A, B, -k, --suite"),
        (("ab", "--resume", "run", "--out", "other"), "--blocks and --out"),
        (("ab", "cython", "cpp", "--blocks", "5"), "a verdict needs 10 good blocks; give 10, 15, 20, 30"),
        (("run", "--resume", "run"), "an ab; go on with it by `sparsebench ab --resume"),
        (("ab", "cython", "cpp", "--save", "ab.csv"), "give a name that ends in .md, .json, .txt"),
        (("ab", "cython", "cpp", "--fail-on", "slow"), "did you mean 'slower'"),
    ],
)
def test_what_makes_no_sense_is_refused(call: Call, world: World, words: tuple[str, ...], said: str) -> None:
    call(*AB)
    code, _, err = call(*words)
    assert (code, said in err) == (2, True), err
