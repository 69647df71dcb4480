"""`sparsebench run` as a person meets it: what it prints, what it exits with, and that a wrong kernel has no time."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from sparsebench.cli.run import _exit_code, _left_out, _source_of
from sparsebench.harness import session
from sparsebench.harness.plan import Plan
from sparsebench.harness.suite import Suite
from sparsebench.plugin import PluginInfo
from sparsebench.registry import Registry, load_registry
from sparsebench.runs.records import TIMED, Sample
from sparsebench.runs.store import Run, read_run

Call = Callable[..., Any]
README = (Path(__file__).parents[2] / "README.md").read_text()
SUITE = """
schema = 1
[suite]
name = "every-kind"
summary = "a kernel, an inference and a training case"
blocks = 1
rounds = 2
[[kernel]]
name = "layer"
op = "linear"
out_features = 48
in_features = 40
batch = 16
pass = ["forward", "both"]
backends = []
[[inference]]
name = "logits"
model = "mlp"
dataset = "digits"
backends = []
[[training]]
name = "step"
model = "mlp"
dataset = "digits"
backends = []
"""
STORES = "self.values, self.transposed_values = values.clone(), values[self.order]"
FIRST = "self.values = getattr(self, 'values', values).clone(); self.transposed_values = self.values[self.order]"
MISTAKES = {
    "right": ("", ""),
    "wrong-output": ("output = product(self.columns", "output = -product(self.columns"),
    "wrong-grad-input": ("grad_input = product", "grad_input = -product"),
    "wrong-grad-weight": ("grad_weight = grad_output.T @ x", "grad_weight = -grad_output.T @ x"),
    "ignores-set-values": (STORES, FIRST),
}
PLUGIN = """
from sparsebench.plugin import BackendSpec, hookimpl

for number, source in enumerate({sources!r}):
    parts = {{"__name__": __name__}}
    exec(source, parts)
    globals()[f"Mine{{number}}"] = parts["Mine"]

@hookimpl
def sparsebench_backends():
    return [BackendSpec(name=name, summary="", load=f"{{__name__}}:Mine{{i}}", ops=("linear",))
            for i, name in enumerate({names!r})]
"""
OTHER = """
from sparsebench.plugin import BackendSpec, hookimpl

@hookimpl
def sparsebench_backends():
    return [BackendSpec(name="far", summary="", load="a:b", ops=("linear",), requires=("no_such_lib",))]
"""


class Files(NamedTuple):
    """A suite, a plugin with a right kernel and wrong ones, and the folder of their run."""

    suite: str
    plugin: str
    folder: Path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("cli-run")
    found = re.search(r"<!-- plugin: begin -->\n```python\n(.*?)```", README, re.DOTALL)
    assert found
    assert all(found.group(1).count(old) == 1 for old, _ in MISTAKES.values() if old)
    sources = [found.group(1).replace(old, new, 1) if old else found.group(1) for old, new in MISTAKES.values()]
    (folder / "mine.py").write_text(PLUGIN.format(sources=sources, names=[*MISTAKES]))
    (folder / "mine.toml").write_text(SUITE)
    return Files(str(folder / "mine.toml"), str(folder / "mine.py"), folder / "run")


@pytest.fixture(scope="module")
def seen(files: Files, shell: Call) -> Any:
    """What the run printed and exited with."""
    return shell("run", files.suite, "--plugin", files.plugin, "--out", str(files.folder))


@pytest.fixture(scope="module")
def run(seen: Any, files: Files) -> Run:
    """What it left."""
    return read_run(files.folder)


@pytest.mark.parametrize("name", [name for name in MISTAKES if name != "right"])
def test_one_wrong_sign_and_every_row_of_it_is_wrong_and_without_a_time(run: Run, name: str) -> None:
    samples = [s for s in run.samples if s.variant == name]
    assert sorted((s.case, s.cell.get("pass")) for s in samples) == [
        ("layer", "both"), ("layer", "forward"), ("logits", None), ("step", None),
    ]  # fmt: skip
    assert {s.status for s in samples} == {"wrong"}
    assert [s.t_ns for s in samples] == [[]] * 4
    assert all("is off by" in (s.reason or "") for s in samples)


@pytest.mark.parametrize("name", ["right", "torch-dense"])
def test_the_right_ones_are_timed_beside_them(run: Run, name: str) -> None:
    samples = [s for s in run.samples if s.variant == name]
    assert len(samples) == 4
    assert {s.status for s in samples} <= TIMED
    assert all(len(s.t_ns) == 2 for s in samples)


def test_a_step_says_where_its_time_went(run: Run) -> None:
    for sample in run.samples:
        if sample.case == "step" and sample.status in TIMED:
            assert {"forward", "backward", "optimizer"} <= sample.splits_ns.keys()


def test_wrong_results_are_exit_code_3(seen: Any) -> None:
    assert seen.code == 3


def test_it_prints_every_case_and_where_the_results_are(seen: Any, files: Files) -> None:
    for word in (
        "every-kind",
        "layer",
        "logits",
        "step",
        *MISTAKES,
        f"Results: {files.folder}",
        "Next: sparsebench check /",
    ):
        assert word in seen.out
    assert max(map(len, seen.out.splitlines())) <= 120
    assert "Traceback" not in seen.err
    assert "block 1: 0 of 4 measurements done" in seen.err


def test_the_run_folder_holds_a_report_and_what_workers_printed(seen: Any, files: Files) -> None:
    assert {p.name for p in files.folder.iterdir()} == {"run.json", "samples.jsonl", "report.md", "lock", "output"}
    assert "every-kind" in (files.folder / "report.md").read_text()


def test_json_is_alone_on_stdout_and_a_finished_run_is_not_measured_again(seen: Any, files: Files, shell: Call) -> None:
    before = (files.folder / "samples.jsonl").read_bytes()
    again = shell("run", "--resume", str(files.folder), "--format", "json")
    assert again.code == 3
    assert "every-kind" in json.dumps(json.loads(again.out))
    assert (files.folder / "samples.jsonl").read_bytes() == before


def test_a_run_does_not_go_on_with_another_plugin(seen: Any, files: Files, shell: Call) -> None:
    text = Path(files.plugin).read_text()
    Path(files.plugin).write_text(OTHER)
    try:
        refused = shell("run", "--resume", str(files.folder))
    finally:
        Path(files.plugin).write_text(text)
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.endswith("the plugins changed since it began; start a new run\n")
    assert refused.err.startswith("sparsebench: cannot resume run ")


def test_dry_run_lists_every_row_and_runs_nothing(files: Files, shell: Call, tmp_path: Path) -> None:
    suite = tmp_path / "dry.toml"
    suite.write_text(SUITE.replace("backends = []", 'backends = ["torch-csr", "torch-dense-bf16", "far"]'))
    plugin = tmp_path / "far.py"
    plugin.write_text(OTHER)
    seen = shell("run", str(suite), "--dry-run", "--plugin", str(plugin), "--out", str(tmp_path / "run"))
    assert seen.code == 0, seen.err
    assert not (tmp_path / "run").exists()
    flat = " ".join(seen.out.replace("\N{NO-BREAK SPACE}", " ").split())
    assert flat.count("torch-dense,") == 4
    assert len(re.findall(r"\(far \[\d+\]\)", flat)) == 4, "also what cannot run is listed"
    assert "skipped: no_such_lib is not installed" in flat
    assert re.search(r"16 rows, \d+ would run\.", flat)
    assert seen.out.rstrip().endswith(f"Next: sparsebench run {suite} --plugin {plugin} --out {tmp_path / 'run'}"), (
        "a file is not run by its name"
    )


def test_dry_run_repeats_every_option_that_was_given(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(Suite("s", "", "torch-dense", (), "", ""), [], {}, {}, {})
    monkeypatch.setattr(session, "plan_run", lambda *_, **__: session.Session(plan, Registry(), {}))
    given = "mine -k 'conv and not 0.99' --backend a --backend b --blocks 2 --seed 0 --quick --shard 1/4 --timeout 60"
    assert call("run", *shlex.split(given), "--dry-run").out.rstrip().endswith(f"Next: sparsebench run {given}")
    assert call("run", "mine", "--dry-run").out.rstrip().endswith("Next: sparsebench run mine")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "run needs a suite or --resume RUN (not both); see `sparsebench list suites`"),
        (["suite-smoke", "--resume", "x"], "run needs a suite or --resume RUN (not both)"),
        (["suite-smoek"], "no suite is named 'suite-smoek'; did you mean 'suite-smoke'"),
        (["nothing.toml"], "suite nothing.toml: no such file"),
        (["suite-smoke", "-k", "nothing"], "suite-smoke: -k 'nothing' selects no cell; cases: linear-512"),
        (["suite-smoke", "--backend", "cythn"], "no backend is named 'cythn'; did you mean 'cython'"),
        (["suite-smoke", "--shard", "3/2"], "--shard 3/2: write I/N with 1 <= I <= N, as in --shard 1/4"),
        (["suite-smoke", "--shard", "²/3"], "--shard ²/3: write I/N"),
        (["suite-smoke", "--shard", "1"], "--shard 1: write I/N"),
        (["suite-smoke", "--blocks", "0"], "Invalid value for '--blocks'"),
        (["suite-smoke", "--plugin", "nothing.py"], "no such file; give the path of a Python file"),
        (["suite-smoke", "--blok", "1"], "No such option"),
        (["--resume", "nothing"], "nothing"),
        (["--resume", "x", "--quick"], "--resume goes on with what the run began with; leave out --quick"),
        (["--resume", "x", "-k", "y", "--seed", "0", "--out", "z"], "leave out -k and --seed and --out"),
        (["--resume", "x", "--backend", "y", "--plugin", "z.py", "--shard", "1/1"],
         "leave out --backend and --plugin and --shard"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_what_cannot_be_done_is_one_line_and_exit_code_2(
    call: Call, args: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = call("run", *args)
    assert (code, out) == (2, "")
    assert message in err
    assert err.startswith("sparsebench: ")
    assert err.count("\n") == 1
    assert [*tmp_path.iterdir()] == [], "nothing has begun"


def test_a_mistake_in_a_suite_is_one_line(call: Call, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(SUITE.replace("batch = 16", "bach = 16"))
    code, _, err = call("run", str(tmp_path / "mine.toml"))
    assert (code, err.count("\n")) == (2, 1)
    assert "mine.toml [[kernel]] 'layer': 'bach' is not a key; did you mean 'batch'" in err


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        (["ok", "contaminated", "unsupported", "skipped"], 0),
        (["ok", "error"], 4),
        (["crash"], 4),
        (["timeout"], 4),
        (["oom"], 4),
        (["crash", "wrong", "ok"], 3),
    ],
)
def test_the_worst_row_decides_the_exit_code_but_peers_do_not(statuses: list[Any], code: int) -> None:
    samples = [Sample(case="a", cell={}, variant=f"v{i}", block=0, status=s) for i, s in enumerate(statuses)]
    assert _exit_code(samples, set()) == code
    assert _exit_code(samples, {sample.variant for sample in samples}) == 0


def test_a_wrong_variant_is_checked_by_its_file_or_its_name(files: Files) -> None:
    registry = load_registry([str(files.plugin)])
    mine = next(name for name, entry in registry.backends.items() if entry.source.file)
    assert _source_of(f"{mine}@a=b", registry) == str(files.plugin)
    assert _source_of("cython", registry) == "cython"
    assert _source_of("acdc@start=1", registry) == "acdc"


@pytest.mark.parametrize(("named", "left_out"), [(["/a.py"], True), (["/b.py"], False), ([], False)])
def test_a_run_without_a_plugin_file_that_was_asked_for_has_failed(named: list[str], left_out: bool) -> None:
    registry = Registry(plugins=(PluginInfo(name="/a.py", status="quarantined", error="import failed"),))
    plan = Plan(Suite("s", "", "torch-dense", (), "", ""), [], {}, {}, {})
    assert _left_out(session.Session(plan, registry, {"files": named})) is left_out
