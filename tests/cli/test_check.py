"""`sparsebench check`: right, wrong, failing and refusing backends, what is said of each, and what it exits with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sparsebench import probing, registry
from sparsebench.cli import check
from sparsebench.harness import checking
from sparsebench.harness.checking import Checked

Call = Callable[..., Any]
PLUGIN = """
from sparsebench.plugin import BackendSpec, hookimpl
from sparsebench.testing.honest import HonestBackend, HonestKernel

class Wrong(HonestKernel):
    def forward(self, x, bias=None):
        return -super().forward(x, bias)

class Raises(HonestKernel):
    def forward(self, x, bias=None):
        if x.shape[0] == 1:
            raise ValueError("no luck")
        return super().forward(x, bias)

class Refuses(HonestBackend):
    def unsupported(self, problem):
        return "not on a Monday"

KERNELS = {"right": HonestKernel, "wrong": Wrong, "raises": Raises}
LOADS = {name: f"make_{name}" for name in KERNELS} | {"refuses": "Refuses"}
for name, kernel in KERNELS.items():
    globals()[f"make_{name}"] = lambda kernel=kernel: HonestBackend(kernel)

@hookimpl
def sparsebench_backends():
    made = [BackendSpec(name=name, summary="", load=f"{__name__}:{load}", ops=("linear",))
            for name, load in LOADS.items() if name in OFFERED]
    far = BackendSpec(name="far", summary="", load="a:b", ops=("linear",), requires=("no_such_lib",))
    return [*made, far] if "far" in OFFERED else made
"""
SUITE = """
schema = 1
[suite]
name = "tiny"
backends = ["torch-csr"]
[[kernel]]
name = "layer"
op = "linear"
out_features = 8
in_features = 6
sparsity = [0.5, 0.9]
pass = ["forward", "both"]
"""


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    def make(*offered: str) -> str:
        path = tmp_path_factory.mktemp("cli-check") / "mine.py"
        path.write_text(f"OFFERED = {offered!r}\n{PLUGIN}")
        return str(path)

    return make


@pytest.fixture(scope="module")
def seen(plugin: Callable[..., str], shell: Call) -> Any:
    """A check of all of them at once."""
    return shell("check", plugin("right", "wrong", "raises", "refuses", "far"))


def row(seen: Any, name: str) -> str:
    (found,) = [line for line in seen.out.splitlines() if line.startswith(f"{name} ")]
    return found


@pytest.mark.parametrize(
    ("name", "verdict"),
    [("right", "right"), ("wrong", "FAILED"), ("raises", "FAILED"), ("refuses", "does nothing"), ("far", "not here")],
)
def test_every_backend_has_its_verdict(seen: Any, name: str, verdict: str) -> None:
    assert row(seen, name).endswith(verdict)


def test_what_is_wrong_is_said_with_the_check_it_failed(seen: Any) -> None:
    assert "  wrong: linear 1x1 batch 1: wrong: forward is off by 2 of its magnitude" in seen.out
    assert "  raises: linear 1x1 batch 1: error: " in seen.out
    assert "no luck" in seen.out
    assert "more; see them with --verbose" in seen.out
    assert "not done: not on a Monday" in seen.out
    assert "not done: no_such_lib is not installed" in seen.out
    assert "Traceback" not in seen.out + seen.err


def test_wrong_comes_before_failed_in_the_exit_code(seen: Any) -> None:
    assert seen.code == 3


def test_it_says_what_to_do_next(seen: Any) -> None:
    assert "Next: mend it, then: sparsebench check " in seen.out


@pytest.mark.parametrize(
    ("target", "what"),
    [
        ("suite-cpu", "suite-cpu"),
        ("a folder/mine.toml", "'a folder/mine.toml'"),
        ("mine.py", "suite-smoke --plugin mine.py"),
        ("cpp@isa=avx2", "suite-smoke --backend cpp@isa=avx2"),
        ("--all", "suite-smoke"),
    ],
)
def test_next_is_a_run_of_what_was_checked(call: Call, target: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "_checked", lambda *_: iter([Checked("torch-dense", "a check", "ok")]))
    assert call("check", target).out.endswith(f"Next: sparsebench run {what}\n")


def test_a_longer_timeout_holds_for_the_import_too(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float | None] = []
    found = registry.load_registry()

    def remember(files: object = (), seconds: float | None = None) -> registry.Registry:
        seen.append(seconds)
        return found

    monkeypatch.setattr(registry, "load_registry", remember)
    for target in ("cythn", "mine.py"):
        for timeout in ("60", "1"):
            assert call("check", target, "--timeout", timeout).code == 2
    assert seen == [60.0, probing.SECONDS] * 2


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        (["ok", "unsupported", "skipped"], 0),
        (["ok", "error"], 4),
        (["crash"], 4),
        (["timeout"], 4),
        (["oom"], 4),
        (["crash", "wrong", "ok"], 3),
    ],
)
def test_the_worst_check_decides_the_exit_code_and_verbose_shows_all(
    call: Call, statuses: list[str], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [Checked("cython", f"check {i}", status, "because") for i, status in enumerate(statuses)]
    monkeypatch.setattr(checking, "check_backends", lambda *_: iter(made))
    seen = call("check", "cython", "--verbose")
    assert seen.code == code
    assert [line for line in seen.out.splitlines() if line.startswith("  cython: check ")] == [
        f"  cython: check {i}: {status}: because" for i, status in enumerate(statuses)
    ]


def test_a_suite_is_checked_on_its_own_inputs_without_timing(shell: Call, tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(SUITE)
    seen = shell("check", str(tmp_path / "tiny.toml"), "--verbose")
    assert seen.code == 0, seen.out + seen.err
    for name in ("torch-dense", "torch-csr"):
        assert row(seen, name).split()[-2:] == ["4", "right"]
    assert "layer[pass=both,sparsity=0.5,threads=1]: ok" in seen.out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tiny.toml"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "check needs a backend, a method, a plugin file, a suite or --all; see `sparsebench list backends`"),
        (["cython", "--all"], "check needs a backend, a method, a plugin file, a suite or --all"),
        (["cythn"], "nothing to check is named 'cythn'; did you mean 'cython'"),
        (["cython@isa=avx9"], "cython@isa=avx9: 'isa' is not an option"),
        (["nothing.py"], "nothing.py: no such file"),
        (["nothing.toml"], "suite nothing.toml: no such file"),
        (["silent.py"], "silent.py cannot be used: it implements no hook"),
        (["broken.py"], "broken.py cannot be used: import failed: RuntimeError: no luck"),
        (
            ["model.py"],
            "model.py offers no backend and no method; return BackendSpec records from sparsebench_backends() or",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_checked_is_one_line_and_exit_code_2(
    call: Call, args: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("silent.py").write_text("x = 3")
    Path("broken.py").write_text("raise RuntimeError('no luck')")
    model = "ModelSpec(name='m', summary='', load='a:b', inputs='features')"
    head = "from sparsebench.plugin import ModelSpec, hookimpl\n@hookimpl\n"
    Path("model.py").write_text(f"{head}def sparsebench_models():\n    return [{model}]")
    code, out, err = call("check", *args)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
