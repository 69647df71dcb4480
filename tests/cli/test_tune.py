"""`sparsebench tune`, measuring for real: what it finds, what it never lets win, what it keeps, and who uses it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sparsebench.cli import tune
from sparsebench.registry import load_registry

Call = Callable[..., Any]
PLUGIN = """
import os
import time

from sparsebench.plugin import BackendSpec, hookimpl, tuned_plan
from sparsebench.testing.honest import HonestBackend, HonestKernel

WAYS = ("slow", "fine", "wrong", "crashes", "raises")


@hookimpl
def sparsebench_backends():
    return [BackendSpec(name="fake", summary="", load=f"{__name__}:Fake", ops=("linear",), options={"way": WAYS})]


class Kernel(HonestKernel):
    def __init__(self, problem, weight, way):
        super().__init__(problem, weight)
        self.way, self.note = way, f"plan way={way}"

    def forward(self, x, bias=None):
        if self.way == "slow":
            time.sleep(0.002)
        if self.way == "crashes":
            os.abort()
        if self.way == "raises":
            raise ValueError("no luck")
        output = super().forward(x, bias)
        return -output if self.way == "wrong" else output


class Fake(HonestBackend):
    def __init__(self, way=None):
        self.way = way

    def plans(self, problem):
        return [{"way": way} for way in WAYS] + [{"way": "odd"}]

    def bind(self, problem, weight):
        plan = {"way": self.way} if self.way else tuned_plan("fake", problem) or self.plans(problem)[0]
        return Kernel(problem, weight, plan["way"])
"""
SUITE = """
schema = 1
[suite]
name = "tiny"
backends = ["fake"]
blocks = 1
rounds = 3
[[kernel]]
name = "layer"
op = "linear"
out_features = 64
in_features = 48
batch = 16
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli-tune")
    (folder / "fake.py").write_text(PLUGIN)
    (folder / "tiny.toml").write_text(SUITE)
    return folder


@pytest.fixture(scope="module")
def seen(place: Path, shell: Call) -> Any:
    """One layer tuned over the fake backend; what it found is kept in `place`/plans."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARSEBENCH_PLANS", str(place / "plans"))
        return shell(
            "tune", str(place / "tiny.toml"), "--plugin", str(place / "fake.py"), "--backend", "fake", "--keep-noisy"
        )


def test_it_finds_the_best_plan_and_says_how_much_it_gains(seen: Any, place: Path) -> None:
    (line,) = [line for line in seen.out.splitlines() if "way=fine" in line]
    assert line.split()[-1] == "6", "plans tried"
    assert float(line.split()[-5].removesuffix("x")) > 3
    assert "its own choice" in line
    assert f"Kept 1 of 1 in {place / 'plans'}" in seen.out
    assert max(map(len, seen.out.split("\n\n")[1].splitlines())) <= 100


def test_what_was_wrong_or_failed_is_said_and_fails_the_command(seen: Any) -> None:
    assert seen.code == 3
    for words in (
        "fake@way=wrong: layer: wrong: forward is off by",
        "fake@way=crashes: layer: crash: killed by SIGABRT",
        "fake@way=raises: layer: error: ValueError: no luck",
        "fake@way=odd: layer: error: plans() gave what its options do not allow",
    ):
        assert words in seen.out
    assert "Traceback" not in seen.out + seen.err


def test_it_says_what_to_do_next(seen: Any, place: Path) -> None:
    assert f"Next: sparsebench run {place / 'tiny.toml'} --backend fake\n" in seen.out


def test_a_run_uses_the_plan_and_says_so(
    seen: Any, place: Path, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    args = ("run", str(place / "tiny.toml"), "--plugin", str(place / "fake.py"), "--out")
    notes = {}
    for name, folder in (("tuned", str(place / "plans")), ("not", "")):
        monkeypatch.setenv("SPARSEBENCH_PLANS", folder)
        assert call(*args, name).code == 0
        samples = map(json.loads, Path(name, "samples.jsonl").read_text().splitlines())
        notes[name] = {sample["note"] for sample in samples if sample["variant"] == "fake"}
    assert notes == {"tuned": {"plan way=fine"}, "not": {"plan way=slow"}}


def test_show_and_clear(seen: Any, place: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSEBENCH_PLANS", str(place / "plans"))
    code, out, _ = call("tune", "--show")
    assert code == 0
    assert "linear 48->64 batch 16 float32 threads 1 uniform" in out
    assert "way=fine" in out
    assert max(map(len, out.splitlines()[2:])) <= 100
    assert json.loads(call("tune", "--show", "--json").out)["plans"]["fake"]
    monkeypatch.setenv("SPARSEBENCH_PLANS", "")
    assert "SPARSEBENCH_PLANS is set to nothing" in call("tune", "--show").out
    assert call("tune", "--clear").code == 2
    copy = place / "copy"
    copy.mkdir()
    for file in (place / "plans").glob("*.json"):
        (copy / file.name).write_bytes(file.read_bytes())
    monkeypatch.setenv("SPARSEBENCH_PLANS", str(copy))
    assert call("tune", "--clear").out.startswith("forgot ")
    assert call("tune", "--clear").out == "nothing was kept\n"
    assert call("tune", "--show").out.startswith("nothing is kept in ")


def test_a_model_as_json(call: Call, place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SPARSEBENCH_PLANS", str(tmp_path))
    args = ("tune", "mlp", "--input", "4x16", "--pass", "forward", "--backend", "cython", "--no-save", "--json")
    code, out, err = call(*args)
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert [layer["layers"] for layer in found["layers"]] == [["fc1"], ["fc2"], ["fc3"]]
    assert found["kept"] is None and not any(tmp_path.iterdir())
    assert {layer["pass"] for layer in found["layers"]} == {"forward"}
    assert all(layer["backends"]["cython"]["ratio"] > 0 for layer in found["layers"])
    assert found["layers"][0]["problem"]["sparsity"] == 0.9


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "tune needs a model, a layer as linear:OUTxIN, a suite, --show or --clear"),
        (["mlp", "--show"], "(one of them)"),
        (["mpl", "--input", "4x16"], "did you mean 'mlp'"),
        (["mlp"], "mlp needs the shape of its input"),
        (["mlp", "--input", "4"], "--input 4: write the sizes of one batch"),
        (["mlp", "--input", "4x16", "--backend", "cythn"], "no backend is named 'cythn'; did you mean 'cython'"),
        (["mlp", "--input", "4x16", "--sparsity", "1"], "1.0 is not in the range"),
        (["mlp", "--input", "4x16", "--pass", "backward"], "'backward' is not one of"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_exits_2(
    call: Call, args: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARSEBENCH_PLANS", str(tmp_path))
    code, out, err = call("tune", *args)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_where_plans_are_off_it_says_so_before_work_starts(call: Call) -> None:
    assert os.environ["SPARSEBENCH_PLANS"] == ""
    code, out, err = call("tune", "mlp", "--input", "4x16")
    assert (code, out) == (2, "")
    assert "SPARSEBENCH_PLANS is set to nothing" in err


def test_what_every_backend_can_do_is_raced_by_default() -> None:
    names = tune._all(load_registry())
    assert {"cython", "torch-csr"} <= set(names)
    assert "torch-dense-bf16" not in names
