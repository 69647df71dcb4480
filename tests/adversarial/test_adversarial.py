"""Every misbehaviour that can be seen inside one process is seen, by the verification or by the loader of plugins.

What hangs, crashes or eats memory needs a process of its own: the tests of the harness run all files of this folder.
"""

import ast
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from sparsebench.discovery import examine, file_source, import_file
from sparsebench.oracle import Oracle, make_oracle
from sparsebench.problem import Problem
from sparsebench.state import GlobalState
from sparsebench.verify import recheck, verify_kernel

HERE = Path(__file__).parent
FILES = sorted(path for path in HERE.glob("*.py") if not path.name.startswith(("test_", "conftest")))
STATUSES = {"quarantined", "ok", "wrong", "error", "crash", "timeout", "oom", "crash|oom", "crash|error"}
NEEDS_A_PROCESS = {"import_hangs", "import_exits", "import_crashes", "import_writes_junk"}
PROBLEMS = [
    Problem(op="linear", out_features=24, in_features=40, batch=8, sparsity=0.7, bias=True),
    Problem(
        op="conv2d", out_features=12, in_features=8, kernel_size=(3, 3), padding=(1, 1), batch=2, height=6, width=5
    ),
]


def expected(path: Path) -> dict[str, str]:
    """The file's EXPECTED, read without importing it."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "EXPECTED":
            found: dict[str, str] = ast.literal_eval(node.value)
            return found
    raise AssertionError(f"{path.name} has no EXPECTED")


def those(status: str) -> list[Any]:
    return [pytest.param(path, id=path.stem) for path in FILES if expected(path)["status"] == status]


def imported(path: Path) -> ModuleType:
    return import_file(str(path), f"adversarial_{path.stem}")


def backend_of(module: ModuleType) -> Any:
    (spec,) = module.sparsebench_backends()
    return getattr(module, spec.load.partition(":")[2])()


def bound(path: Path, problem: Problem) -> tuple[Any, Oracle]:
    oracle = make_oracle(problem)
    return backend_of(imported(path)).bind(problem, oracle.weight), oracle


@pytest.fixture(autouse=True)
def everything_is_put_back() -> Any:
    state = GlobalState.capture()
    torch.set_num_threads(1)
    yield
    state.restore()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_says_what_it_does_and_what_must_come_of_it(path: Path) -> None:
    wanted = expected(path)
    assert wanted.keys() == {"status", "reason"}
    assert wanted["status"] in STATUSES
    re.compile(wanted["reason"])
    does, status = ast.get_docstring(ast.parse(path.read_text())), wanted["status"].replace("|", " or ")
    assert f"| `{path.stem}` | {does} | {status} |" in (HERE / "README.md").read_text().splitlines()


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.op)
@pytest.mark.parametrize("path", [p for p in those("wrong") if p.id != "drifts"])
def test_wrong_kernels_are_found_before_they_are_timed(path: Path, problem: Problem) -> None:
    state = GlobalState.capture()
    kernel, oracle = bound(path, problem)
    if changes := state.changes():
        assert re.search(expected(path)["reason"], changes)
        return
    finding = verify_kernel(kernel, oracle)
    assert not finding.ok
    assert finding.reason is not None
    assert re.search(expected(path)["reason"], finding.reason), finding.reason


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.op)
def test_a_kernel_that_drifts_is_found_after_it_was_timed(problem: Problem) -> None:
    kernel, oracle = bound(HERE / "drifts.py", problem)
    assert verify_kernel(kernel, oracle).ok
    assert recheck(kernel, oracle).ok
    for _ in range(60):
        kernel.forward(oracle.x, oracle.bias)
    assert "off by" in (recheck(kernel, oracle).reason or "")


@pytest.mark.parametrize("path", [p for p in those("error") if not p.id.startswith("unsupported_")])
def test_errors_are_the_callers(path: Path) -> None:
    with pytest.raises(BaseException) as raised:  # SystemExit and KeyboardInterrupt belong to it
        verify_kernel(*bound(path, PROBLEMS[0]))
    assert re.search(expected(path)["reason"], f"{raised.type.__name__}: {raised.value}")


@pytest.mark.parametrize("path", [p for p in those("ok") if p.id not in {"spawns_thread", "leaves_a_child"}])
def test_what_is_only_rude_is_right(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert verify_kernel(*bound(path, PROBLEMS[0])).ok
    assert len(capfd.readouterr().out) > 100_000


@pytest.mark.parametrize("path", [p for p in those("quarantined") if p.id not in NEEDS_A_PROCESS])
def test_what_cannot_be_a_plugin_is_quarantined(path: Path) -> None:
    (found,) = examine(file_source(path))
    assert found.info.status == "quarantined"
    assert re.search(expected(path)["reason"], found.info.error), found.info.error


def test_no_file_leaves_the_process_changed() -> None:
    state = GlobalState.capture()
    for path in FILES:
        if path.stem.startswith("changes_") and path.stem != "changes_threads_in_bind":
            verify_kernel(*bound(path, PROBLEMS[0]))
            assert state.changes() is None
    assert torch.get_default_dtype() == torch.float32
