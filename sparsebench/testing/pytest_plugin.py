"""The pytest plugin: conformance checks of a plugin as test items, and a benchmark of kernels that are proven right.

    pytest --sparsebench-plugin my_kernel.py        # or in pytest.ini: sparsebench_plugins = my_kernel.py

    def test_speed(kernel_benchmark):
        kernel_benchmark("my-kernel", Problem(op="linear", out_features=512, in_features=512, batch=64), "forward")

Every pytest run imports this module, so it loads neither torch nor plugins until one of the two is asked for. Checks
run in pytest's own process: a kernel that crashes ends it; `sparsebench check` gives each a process of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from sparsebench.problem import Problem
    from sparsebench.testing.benchmark import KernelBenchmark

OPTION, INI = "--sparsebench-plugin", "sparsebench_plugins"


def pytest_addoption(parser: pytest.Parser) -> None:
    """One option, and the same as a line of the ini file."""
    text = "a plugin file, or the name of an installed backend, method or distribution: its conformance checks as tests"
    group = parser.getgroup("sparsebench")
    group.addoption(OPTION, action="append", default=[], metavar="FILE|NAME", help=text)
    parser.addini(INI, f"as {OPTION}, one a line; files are relative to the folder of this file", type="linelist")


def asked(config: pytest.Config) -> list[str]:
    """What is to be checked, once each; the command line's files are relative to where pytest was called."""
    here, there = config.invocation_params.dir, config.rootpath
    given = [_absolute(text, here) for text in config.getoption(OPTION)]
    return list(dict.fromkeys([*given, *(_absolute(text, there) for text in config.getini(INI))]))


def _absolute(text: str, folder: Path) -> str:
    return str((folder / text).resolve()) if text.endswith(".py") else text


@pytest.hookimpl(tryfirst=True)  # before -k and -m choose
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Add an item for every check; what is asked for and cannot be checked ends the session with one line."""
    names = asked(config)
    if names:
        from sparsebench.errors import SparsebenchError

        try:
            for name in names:
                short = Path(name).name
                found: list[pytest.Item | pytest.Collector] = [
                    *Conformance.from_parent(session, name=short, nodeid=short, what=name).collect()
                ]
                items.extend(item for item in found if isinstance(item, pytest.Item))
                report = pytest.CollectReport(short, "passed", None, found)
                config.hook.pytest_collectreport(report=report)  # or the count of what was collected lacks them
        except SparsebenchError as error:
            raise pytest.UsageError(f"{OPTION}: {error}") from None


class Conformance(pytest.Collector):
    """All backends and methods of one file, name or distribution."""

    def __init__(self, *, what: str, **rest: Any) -> None:
        super().__init__(**rest)
        self.what = what

    def collect(self) -> Iterator[pytest.Item]:
        """An item for each check."""
        from sparsebench.testing.params import all_params

        for param in all_params(self.what):
            yield CheckItem.from_parent(self, name=str(param.id), check=param.values[0])


class CheckItem(pytest.Item):
    """One check of one backend or method."""

    def __init__(self, *, check: Callable[[], None], **rest: Any) -> None:
        super().__init__(**rest)
        self.check = check
        self.add_marker("sparsebench")

    def runtest(self) -> None:
        """Fails, skips or returns."""
        self.check()

    def reportinfo(self) -> tuple[Path, None, str]:
        """As `-v` and the summary show it."""
        return self.path, None, f"{self.parent.name if self.parent else ''}::{self.name}"


def pytest_configure(config: pytest.Config) -> None:
    """The marker of conformance items: `-m sparsebench` chooses them."""
    config.addinivalue_line("markers", "sparsebench: a conformance check of a plugin, added by --sparsebench-plugin")


@pytest.fixture
def kernel_benchmark(request: pytest.FixtureRequest) -> Callable[[str, Problem, str], KernelBenchmark]:
    """Call it with a backend's name, a problem and a pass: it proves the kernel right, times it, looks at it again.

    A wrong kernel fails the test, one that cannot do the problem skips it; rounds are those of pytest-benchmark.
    """
    if not request.config.pluginmanager.hasplugin("benchmark"):
        pytest.fail("kernel_benchmark needs pytest-benchmark: pip install pytest-benchmark", pytrace=False)
    benchmark = request.getfixturevalue("benchmark")

    def measure(backend: str, problem: Problem, which: str = "forward") -> KernelBenchmark:
        from sparsebench.testing.benchmark import measure_kernel

        files = [name for name in asked(request.config) if name.endswith(".py")]
        return measure_kernel(benchmark, backend, problem, which, files)

    return measure
