"""What the README says is true: its plugin is right, each mistake in it is found, its Python runs, its links lead."""

import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest

from sparsebench.cli import VERBS, commands
from sparsebench.discovery import examine, file_source
from sparsebench.oracle import make_oracle
from sparsebench.problem import Problem
from sparsebench.testing.pytest_plugin import OPTION
from sparsebench.tolerance import Finding
from sparsebench.verify import verify_kernel

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
PROBLEMS = [
    Problem(op="linear", out_features=33, in_features=47, batch=5, sparsity=0.8),
    Problem(op="linear", out_features=64, in_features=17, batch=1, sparsity=0.99),
    Problem(op="linear", out_features=8, in_features=8, batch=3, sparsity=0.0),
]


def block(name: str) -> str:
    """The code between the markers of one block."""
    found = re.search(rf"<!-- {name}: begin -->\n```python\n(.*?)```\n<!-- {name}: end -->", README, re.DOTALL)
    assert found, f"the README has no block {name}"
    return found.group(1)


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[Callable[[str], ModuleType]]:
    made: list[str] = []

    def load(source: str) -> ModuleType:
        path = tmp_path / f"my_kernel_{len(made)}.py"
        path.write_text(source)
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        made.append(path.stem)
        spec.loader.exec_module(module)
        return module

    yield load
    for name in made:
        del sys.modules[name]


def verified(module: ModuleType, problem: Problem) -> Finding:
    oracle = make_oracle(problem)
    return verify_kernel(module.Mine().bind(problem, oracle.weight), oracle, "float32")


@pytest.mark.parametrize("problem", PROBLEMS, ids=Problem.describe)
def test_the_plugin_is_right(plugin: Callable[[str], ModuleType], problem: Problem) -> None:
    finding = verified(plugin(block("plugin")), problem)
    assert finding.ok, finding.reason


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("return output if bias is None", "return -output if bias is None"),
        ("grad_input = product", "grad_input = -product"),
        ("grad_weight = grad_output.T @ x", "grad_weight = -grad_output.T @ x"),
        ("self.values, self.transposed_values = values.clone(), values[self.order]",
         "self.values = getattr(self, 'values', values).clone(); self.transposed_values = self.values[self.order]"),
    ],
    ids=["forward", "grad_input", "grad_values", "set_values"],
)  # fmt: skip
def test_each_mistake_is_found(plugin: Callable[[str], ModuleType], right: str, wrong: str) -> None:
    source = block("plugin")
    assert source.count(right) == 1
    finding = verified(plugin(source.replace(right, wrong)), PROBLEMS[0])
    assert not finding.ok
    assert finding.reason


def test_the_plugin_is_found_and_short(tmp_path: Path) -> None:
    path = tmp_path / "my_kernel.py"
    path.write_text(block("plugin"))
    (found,) = examine(file_source(path))
    assert found.info.status == "ok", found.info.error
    assert [spec["name"] for spec in found.specs["backends"]] == ["my-kernel"]
    assert len([line for line in block("plugin").splitlines() if line.strip()]) <= 45


def test_the_python_example_runs() -> None:
    exec(compile(block("python"), "README.md", "exec"), {})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def options() -> set[str]:
    """Every option of every verb, and the one that our pytest plugin adds."""
    group = click.Context(commands)
    verbs = [commands.get_command(group, verb) for verb in VERBS]
    return {OPTION, *(name for verb in verbs if verb for parameter in verb.params for name in parameter.opts)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_option_that_is_named_exists(page: Path) -> None:
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", page.read_text()))
    assert named <= options()
    assert "--no-such-option" not in options()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_verb_that_is_named_exists(page: Path) -> None:
    named = set(re.findall(r"(?:^|`)sparsebench ([a-z]+)", page.read_text(), re.MULTILINE))
    assert named <= VERBS.keys()
