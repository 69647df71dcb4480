"""Pruning methods on the command line: `check` of one, of a plugin file's, and `run` of a suite with `--method`."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sparsebench.cli import check
from sparsebench.harness.checking import Checked
from sparsebench.runs.store import read_run
from sparsebench.testing import method_checks

Call = Callable[..., Any]
CASE = """
[[accuracy]]
name = "digits"
model = "mlp"
dataset = "digits"
batch = 128
epochs = 1
method = ["static", "magnitude"]
sparsity = [0.5, 0.9]
"""
SUITE = f"""
schema = 1
[suite]
name = "tiny"
backends = ["torch-csr"]
blocks = 1
rounds = 2
[[kernel]]
name = "layer"
op = "linear"
out_features = 8
in_features = 6
{CASE}
"""
PLUGIN = """
from sparsebench.plugin import MethodSpec, Update, hookimpl

class Right:
    def setup(self, ctx):
        return Update(masks=self.masks(ctx))
    def masks(self, ctx):
        return ctx.select({name: weight.abs() for name, weight in ctx.prunable.items()})

class OneTooFew(Right):
    def masks(self, ctx):
        masks = super().masks(ctx)
        for mask in masks.values():
            mask.view(-1)[mask.view(-1).nonzero()[0]] = False
        return masks

class Raises(Right):
    def masks(self, ctx):
        raise ValueError("no luck")

@hookimpl
def sparsebench_methods():
    return [MethodSpec(name=each.__name__.lower(), summary="", load=f"{__name__}:{each.__name__}", kind="fixed",
                       source="") for each in (Right, OneTooFew, Raises) if each.__name__ in OFFERED]
"""


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    def make(*offered: str) -> str:
        path = tmp_path_factory.mktemp("cli-methods") / "mine.py"
        path.write_text(f"OFFERED = {offered!r}\n{PLUGIN}")
        return str(path)

    return make


def row(seen: Any, name: str) -> list[str]:
    (found,) = [line.split() for line in seen.out.splitlines() if line.startswith(f"{name} ")]
    return found


def test_check_of_a_method_trains_it_in_small_and_says_what_cannot_be(shell: Call) -> None:
    seen = shell("check", "gmp")
    assert seen.code == 0, seen.out + seen.err
    assert row(seen, "gmp") == ["gmp", str(len(method_checks()) - 1), "1", "right"]
    assert "gmp: 1 not done: 2:4 groups have one sparsity" in seen.out
    assert seen.out.endswith("Next: sparsebench run suite-smoke --method gmp\n")


def test_check_of_a_file_checks_its_methods_each_on_its_own(shell: Call, plugin: Callable[..., str]) -> None:
    file = plugin("Right", "OneTooFew", "Raises")
    seen = shell("check", file)
    count = str(len(method_checks()))
    assert row(seen, "right") == ["right", count, "right"]
    assert row(seen, "onetoofew") == ["onetoofew", count, "FAILED"]
    assert row(seen, "raises") == ["raises", count, "FAILED"]
    told = " ".join(seen.out.split())  # lines are broken to fit
    assert re.search(r"onetoofew: linear, nesterov: wrong: method onetoofew, setup .*\(invariant 'budget'\)", told)
    assert re.search(r"raises: linear, nesterov: error: ValueError: no luck \(in masks, mine\.py:\d+\)", told)
    assert "more; see them with --verbose" in seen.out
    assert seen.code == 3, "wrong comes before failed"
    assert seen.out.endswith(f"Next: mend it, then: sparsebench check {file}\n")
    assert "Traceback" not in seen.out + seen.err


def test_options_in_the_name_are_those_of_every_training(shell: Call) -> None:
    """Two updates, the first of them at the sparsity that 2:4 groups have."""
    seen = shell("check", "gmp@initial=0.5,updates=1", "--verbose")
    assert seen.code == 0, seen.out + seen.err
    assert "gmp@initial=0.5,updates=1: 2:4 groups: ok" in seen.out


@pytest.mark.parametrize(
    ("target", "what"),
    [("gmp", "suite-smoke --method gmp"), ("gmp@regrow=true", "suite-smoke --method gmp@regrow=true"),
     ("mine.py", "suite-smoke --plugin mine.py"), ("--all", "suite-smoke")],
)  # fmt: skip
def test_next_is_a_run_of_the_method_that_was_checked(
    call: Call, target: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "_checked", lambda *_: iter([Checked("gmp", "a check", "ok", kind="method")]))
    assert call("check", target).out.endswith(f"Next: sparsebench run {what}\n")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["check", "gmpp"], "nothing to check is named 'gmpp'; did you mean 'gmp'"),
        (["check", "gmp@regrwo=true"], "gmp@regrwo=true: 'regrwo' is not a parameter; did you mean 'regrow'"),
        (["check", "gmp@updates=x"], "gmp@updates=x: updates = 'x'; write a whole number"),
        (["run", "tiny.toml", "--method", "gmpp"], "--method: no method is named 'gmpp'; did you mean 'gmp'"),
        (["run", "tiny.toml", "--method", "gmp@end=2"], "case 'digits': gmp prunes from begin = 0.1 to end = 2; use"),
        (["run", "tiny.toml", "--method", "gmp", "-k", "layer"], "--method gmp with -k 'layer' selects no cell"),
        (["run", "empty.toml"], "case 'digits': fc2.weight has 262144 weights and keeps none at a sparsity"),
        (["run", "groups.toml"], "case 'digits': fc1.weight has 64 input channels, which are no whole groups of 5"),
        (["run", "names.toml"], "weights.pt: does not have fc1.weight, fc1.bias, fc2.weight and 3 more"),
        (["run", "shapes.toml"], "odd.pt: fc1.weight is [3, 3] and the model has [512, 64]"),
        (["run", "lion.toml"], "lion.toml [[accuracy]] 'digits': optimizer = 'lion'; use sgd, adam, adamw"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_done_is_one_line_and_exit_code_2(
    call: Call, args: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"first.weight": torch.ones(3)}, "weights.pt")
    names = {f"fc{i}.{leaf}": torch.ones(3, 3) for i in (1, 2, 3) for leaf in ("weight", "bias")}
    torch.save(names, "odd.pt")
    head = SUITE.partition("[[kernel]]")[0]
    Path("tiny.toml").write_text(SUITE)
    for name, change in (
        ("empty", "sparsity = 0.999999"), ("groups", 'sparsity = 0.6\nallocator = "nm:2:5"'),
        ("names", 'checkpoint = "weights.pt"'), ("shapes", 'checkpoint = "odd.pt"'), ("lion", 'optimizer = "lion"'),
    ):  # fmt: skip
        case = CASE.replace("sparsity = [0.5, 0.9]", "") if "sparsity" in change else CASE
        Path(f"{name}.toml").write_text(f"{head}{case}{change}\n")
    code, out, err = call(*args)
    assert (code, out) == (2, "")
    assert message in err
    assert err.startswith("sparsebench: ")
    assert err.count("\n") == 1
    assert not Path("results").exists(), "nothing has begun"


@pytest.fixture(scope="module")
def seen(shell: Call, plugin: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A run of one method beside a plugin's, and its folder."""
    folder = tmp_path_factory.mktemp("cli-run-method")
    (folder / "tiny.toml").write_text(SUITE)
    given = ["--method", "gmp@updates=3", "--plugin", plugin("Right"), "--quick", "--out", str(folder / "run")]
    return shell("run", str(folder / "tiny.toml"), *given), folder / "run"


def test_method_selects_and_competes_beside_dense_and_a_files_methods(seen: tuple[Any, Path]) -> None:
    told, folder = seen
    assert told.code == 0, told.out + told.err
    rows = sorted((s.case, s.cell["sparsity"], s.variant) for s in read_run(folder).samples)
    assert rows == [("digits", 0.0, "dense"), ("digits", 0.5, "gmp@updates=3"), ("digits", 0.5, "right")]


def test_what_is_printed_has_every_method_and_one_seed_names_no_winner(seen: tuple[Any, Path]) -> None:
    told, folder = seen
    for text in ("ACCURACY", "0.5 gmp@updates=3", "0.5 right", f"Results: {folder}"):
        assert text in told.out
    assert "most accurate" not in told.out
    assert "KERNEL" not in told.out
    assert max(map(len, told.out.splitlines())) <= 120
    assert "## accuracy" in (folder / "report.md").read_text()


def test_a_finished_training_is_not_trained_again(seen: tuple[Any, Path], shell: Call) -> None:
    before = (seen[1] / "samples.jsonl").read_bytes()
    again = shell("run", "--resume", str(seen[1]), "--format", "json")
    assert again.code == 0, again.err
    assert '"scores"' in again.out
    assert (seen[1] / "samples.jsonl").read_bytes() == before


def test_dry_run_lists_methods_by_case_and_repeats_the_selection(shell: Call, tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(SUITE)
    seen = shell("run", str(tmp_path / "tiny.toml"), "--method", "gmp", "--dry-run")
    assert seen.code == 0, seen.err
    flat = " ".join(seen.out.replace("\N{NO-BREAK SPACE}", " ").split())
    assert re.search(r"3 rows, 3 would run\.", flat)
    assert seen.out.rstrip().endswith(f"Next: sparsebench run {tmp_path / 'tiny.toml'} --method gmp")
