"""The pytest plugin: conformance checks as items, a benchmark that fails what is wrong, no cost where not asked."""

import json
import subprocess
import sys
from importlib.metadata import entry_points

import pytest

pytest_plugins = ["pytester"]
PLUGIN = "sparsebench.testing.pytest_plugin"
INSTALLED = any(point.value == PLUGIN for point in entry_points(group="pytest11"))
ONCE = () if INSTALLED else ("-p", PLUGIN)  # an installation made before there was an entry point lacks it
KERNELS = '''
import torch
from sparsebench.plugin import BackendSpec, UnsupportedError, hookimpl

class Kernel:
    factor = 1.0
    def __init__(self, weight):
        self.weight, self.dense = weight, weight.to_dense()
    def forward(self, x, bias=None):
        return torch.nn.functional.linear(x, self.dense * self.factor, bias)
    def backward(self, x, grad_output, needs=(True, True), saved=None):
        return grad_output @ self.dense, self.weight.gather(grad_output.T @ x)
    def set_values(self, values):
        self.dense = self.weight.with_values(values).to_dense()

class Right:
    def unsupported(self, problem):
        return "no batch of 7" if problem.batch == 7 else None
    def bind(self, problem, weight):
        return Kernel(weight)

class Wrong(Right):
    def bind(self, problem, weight):
        kernel = Kernel(weight)
        kernel.factor = 1.01
        return kernel

class Late(Right):
    """Right until it has run often: as a kernel is that breaks once it is timed."""
    def bind(self, problem, weight):
        kernel = Kernel(weight)
        forward, calls = kernel.forward, []
        def late(x, bias=None):
            calls.append(1)
            return forward(x, bias) * (1.0 if len(calls) < 20 else 1.01)
        kernel.forward = late
        return kernel

@hookimpl
def sparsebench_backends():
    return [BackendSpec(name=name.lower(), summary="", load=f"{__name__}:{name}", ops=("linear",))
            for name in ("Right", "Wrong", "Late")]
'''
BENCHMARKS = """
import pytest
from sparsebench.plugin import Problem

@pytest.mark.parametrize("backend, batch, which", [
    ("right", 8, "forward"), ("right", 8, "grad_weight"), ("right", 8, "both"),
    ("wrong", 8, "forward"), ("late", 8, "forward"), ("right", 7, "forward"), ("rihgt", 8, "forward"),
    ("right", 8, "forwards"),
])
def test_speed(kernel_benchmark, backend, batch, which):
    problem = Problem(op="linear", out_features=32, in_features=32, batch=batch)
    result = kernel_benchmark(backend, problem, which)
    assert result.max_rel_err <= result.tolerance
"""


@pytest.fixture
def project(pytester):
    """A folder with a plugin file; `run` is pytest in a process of its own, with our plugin once."""
    pytester.makepyfile(mine=KERNELS)

    def run(*args):
        return pytester.run(sys.executable, "-m", "pytest", *ONCE, "-p", "no:cacheprovider", *args)

    pytester.start = run
    return pytester


def test_checks_are_items_that_pass_and_fail(project):
    found = project.start("--sparsebench-plugin", "mine.py", "-k", "right and not wrong or wrong and 7x5")
    outcomes = found.parseoutcomes()
    assert outcomes["passed"] > 20
    assert outcomes["failed"] == 2
    assert outcomes.get("errors", 0) == 0
    text = found.stdout.str()
    assert "FAILED mine.py::wrong:-linear-7x5-batch-3-at-0.5" in text
    assert "collected 87 items / 56 deselected / 31 selected" in text
    assert "linear 7x5 batch 3 at 0.5: wrong: forward is off by 0.01 of its magnitude" in text


def test_the_ini_file_names_them_too(project):
    project.makeini("[pytest]\nsparsebench_plugins =\n    mine.py\n    torch-csr\n")
    found = project.start("--collect-only", "-q", "-m", "sparsebench")
    text = found.stdout.str()
    assert "right:-linear-with-bias" in text
    assert "torch-csr:-linear-with-bias" in text


def test_methods_are_checked_too(project):
    found = project.start("--sparsebench-plugin", "gmp", "--collect-only", "-q")
    assert "gmp:-2:4-groups" in found.stdout.str()


@pytest.mark.parametrize(
    ("what", "words"),
    [("torch-crs", "did you mean 'torch-csr'"), ("empty.py", "offers no backend and no method"), ("no.py", "no.py")],
)
def test_what_cannot_be_checked_is_one_line(project, what, words):
    project.makepyfile(empty="")
    found = project.start("--sparsebench-plugin", what)
    assert found.ret == pytest.ExitCode.USAGE_ERROR
    assert words in found.stderr.str()
    assert "Traceback" not in found.stderr.str() + found.stdout.str()


def test_what_is_right_is_timed_and_what_is_not_fails_or_skips(project):
    project.makepyfile(test_it=BENCHMARKS)
    found = project.start("--sparsebench-plugin", "mine.py", "-k", "test_speed", "-rA", "--benchmark-json", "out.json")
    text = found.stdout.str()
    outcomes = found.parseoutcomes()
    assert (outcomes["passed"], outcomes["failed"], outcomes["skipped"]) == (3, 4, 1)
    for words in (
        "wrong is wrong before it was timed: forward",
        "late is wrong after it was timed: forward",
        "no batch of 7",
        "did you mean 'right'",
        "did you mean 'forward'",
    ):
        assert words in text
    told = {each["name"]: each for each in json.loads((project.path / "out.json").read_text())["benchmarks"]}
    for which in ("forward", "grad_weight", "both"):
        extra, stats = (told[f"test_speed[right-8-{which}]"][key] for key in ("extra_info", "stats"))
        assert (extra["backend"], extra["pass"], stats["rounds"]) == ("right", which, 12)
        assert 0 <= extra["max_rel_err"] <= extra["tolerance"]
        assert stats["iterations"] > 1
    assert "test_speed[wrong-8-forward]" not in told


def test_without_pytest_benchmark_it_says_what_to_install(project):
    project.makepyfile(test_it="def test_it(kernel_benchmark):\n    pass\n")
    found = project.start("-p", "no:benchmark")
    assert "pip install pytest-benchmark" in found.stdout.str()


LOADED = r"""
import sys
import pytest

class Look:
    def pytest_sessionfinish(self):
        print("\nLOADED", [n for n in ("torch", "numpy", "sparsebench.registry") if n in sys.modules])

pytest.main([*{once}, "-q", *sys.argv[1:]], plugins=[Look()])
"""


def loaded_by(folder, *args):
    program = LOADED.format(once=ONCE)
    done = subprocess.run([sys.executable, "-P", "-c", program, *args], cwd=folder, capture_output=True, text=True)
    return next(line for line in done.stdout.splitlines() if line.startswith("LOADED"))


def test_it_costs_nothing_where_it_is_not_asked(tmp_path):
    (tmp_path / "test_plain.py").write_text("def test_plain():\n    assert True\n")
    assert loaded_by(tmp_path) == "LOADED []"


def test_twin_where_it_is_asked_the_registry_is_loaded(tmp_path):
    (tmp_path / "test_plain.py").write_text("def test_plain():\n    assert True\n")
    assert "sparsebench.registry" in loaded_by(tmp_path, "--sparsebench-plugin", "torch-csr", "--collect-only")
