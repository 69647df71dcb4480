"""Methods that misbehave in one run: each row comes to its known end, and the others are trained beside it."""

from __future__ import annotations

import re

import psutil
import pytest

from sparsebench.harness.crew import Limits
from sparsebench.harness.plan import Selection
from sparsebench.harness.session import plan_run
from sparsebench.report import render
from sparsebench.runs.records import TIMED, Sample
from sparsebench.runs.store import Run, read_run
from sparsebench.runs.summary import summarize

LIMITS = Limits(seconds=12.0)  # a right answer takes a tenth of it
SUITE = """
schema = 1
[suite]
name = "tiny"
[[accuracy]]
name = "digits"
model = "mlp"
dataset = "digits"
batch = 128
epochs = 1
method = ["magnitude", "gmp@updates=3"]
sparsity = 0.9
[[accuracy]]
name = "explodes"
model = "mlp"
dataset = "digits"
batch = 128
epochs = 1
lr = 1e30
method = ["magnitude"]
sparsity = 0.5
"""
PLUGIN = """
import os, time, torch
from sparsebench.plugin import Event, MethodSpec, Update, hookimpl

class Mine:
    def setup(self, ctx):
        self.bad = ctx.sparsity == 0.9
        return Update(masks=ctx.select({name: weight.abs() for name, weight in ctx.prunable.items()}))
    def on_event(self, event, ctx):
        if self.bad and event is Event.STEP_BEGIN and ctx.step == 2:
            self.misbehave(ctx)

class Hangs(Mine):
    def misbehave(self, ctx):
        time.sleep(3600)

class Exits(Mine):
    def misbehave(self, ctx):
        os._exit(0)

class Raises(Mine):
    def misbehave(self, ctx):
        raise ValueError("no luck")

class TurnsThreads(Mine):
    def misbehave(self, ctx):
        torch.set_num_threads(2)

class Prints(Mine):
    def misbehave(self, ctx):
        print("hello")

class RaisesInSetup(Mine):
    def setup(self, ctx):
        if ctx.sparsity == 0.9:
            raise ValueError("not today")
        return super().setup(ctx)

class Lies(Mine):
    def misbehave(self, ctx):
        pass
    def export(self, ctx):
        state = ctx.state()
        return {"sparse": {**state, "fc1.bias": state["fc1.bias"] + self.bad}}

@hookimpl
def sparsebench_methods():
    offered = [each.__name__ for each in (Hangs, Exits, Raises, TurnsThreads, Prints, RaisesInSetup, Lies)]
    return [MethodSpec(name=name.lower(), summary="", load=f"{__name__}:{name}", kind="fixed", source="")
            for name in offered]
"""
ENDS = {
    "dense": ("ok", ""),
    "magnitude": ("ok", ""),
    "gmp@updates=3": ("ok", ""),
    "hangs": ("timeout", "12"),
    "exits": ("crash", "exit"),
    "raises": ("error", r"^ValueError: no luck \(in misbehave, mine\.py:\d+\)$"),
    "turnsthreads": ("wrong", "torch's number of threads from 1 to 2"),
    "prints": ("ok", ""),
    "raisesinsetup": ("error", r"^ValueError: not today"),
    "lies": ("wrong", "logits of the export"),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("accuracy")
    (folder / "tiny.toml").write_text(SUITE)
    (folder / "mine.py").write_text(PLUGIN)
    files = [str(folder / "mine.py")]
    session = plan_run(str(folder / "tiny.toml"), Selection(), files=files, limits=LIMITS, out=folder / "run")
    return read_run(session.run())


def row(run: Run, case: str, variant: str) -> Sample:
    (found,) = (s for s in run.samples if (s.case, s.variant) == (case, variant))
    return found


@pytest.mark.timeout(240)
@pytest.mark.parametrize("variant", ENDS)
def test_comes_to_its_known_end(run: Run, variant: str) -> None:
    sample, (status, reason) = row(run, "digits", variant), ENDS[variant]
    assert sample.status == status or (status == "ok" and sample.status in TIMED)
    assert re.search(reason, sample.reason or "")
    assert bool(sample.metrics) == bool(sample.t_ns) == (status == "ok"), "only a row that is right has numbers"


def test_a_loss_that_is_not_finite_is_an_error_that_names_step_and_layer(run: Run) -> None:
    samples = [s for s in run.samples if s.case == "explodes"]
    assert len(samples) == len(ENDS) - 1, "all but the second method of the other case"
    for sample in samples:
        assert sample.status == "error"
        assert re.fullmatch(
            r"the loss is (nan|inf) at step \d+: (the output of )?fc\d(\.\w+)? is not finite; lower the learning rate",
            sample.reason or "",
        )
        assert sample.metrics == {}


def test_what_went_well_was_trained_once_and_has_its_numbers(run: Run) -> None:
    for variant in ("dense", "magnitude", "gmp@updates=3", "prints"):
        sample = row(run, "digits", variant)
        assert (sample.block, len(sample.t_ns), sample.loops) == (0, 1, 1)
        assert (0.3 if variant == "dense" else 0.0) < sample.metrics["accuracy"] <= 1
        assert {"forward", "backward", "optimizer", "mask"} <= sample.splits_ns.keys()
        assert (sample.metrics["sparsity"] > 0) == (variant != "dense")
    assert "printed" in row(run, "digits", "prints").note


def test_nothing_of_a_training_is_left_in_the_folder_and_no_process(run: Run) -> None:
    assert {p.name for p in run.path.iterdir()} <= {"run.json", "samples.jsonl", "lock", "output"}
    children = [" ".join(p.cmdline()) for p in psutil.Process().children(recursive=True)]
    assert not [line for line in children if "sparsebench.harness.worker" in line]


def test_run_json_says_who_competed_where(run: Run) -> None:
    told = {(c.case, c.cell["sparsity"]): (c.variants, c.baseline, c.kind) for c in run.info.cells}
    assert told["digits", 0.0] == (["dense"], "dense", "accuracy")
    assert told["digits", 0.9][0][:2] == ["magnitude", "gmp@updates=3"]
    assert {*ENDS} == {*told["digits", 0.0][0], *told["digits", 0.9][0]}


def test_the_report_has_every_row_with_its_reason(run: Run) -> None:
    summary = summarize(run)
    assert {(s.case, s.variant) for s in summary.scores} == {(s.case, s.variant) for s in run.samples}
    text = render(summary)
    for variant in ENDS:
        assert re.search(rf"^(0\.9 )?{re.escape(variant)} ", text, re.MULTILINE)
    assert "ValueError: not today" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 100
    assert summary.rankings == ()  # one seed tells nobody apart
