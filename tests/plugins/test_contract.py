"""Our own plugins import what any plugin may, and the contract's module has all of it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import sparsebench.plugin

FOLDER = Path(__file__).parents[2] / "plugins"
ALLOWED = {"plugin", "builtin", "kernels"}
RACES = {"_fastest.py"}  # chooses at bind time, and may use the stopwatch


def groups(source: str) -> Iterator[str]:
    """'errors' for every import from sparsebench.errors, wherever in the module it stands."""
    for node in ast.walk(ast.parse(source)):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        yield from (name.split(".")[1] if "." in name else name for name in names if name.startswith("sparsebench"))


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.py")), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_built_in_plugin_imports_the_contract_alone(path: Path) -> None:
    assert set(groups(path.read_text())) <= ALLOWED | ({"timing"} if path.name in RACES else set())


def test_an_import_from_elsewhere_is_seen() -> None:
    assert list(groups("def f():\n    from sparsebench.errors import UnsupportedError")) == ["errors"]
    assert list(groups("import sparsebench.weight")) == ["weight"]


@pytest.mark.parametrize("name", sparsebench.plugin.__all__)
def test_the_contract_has_what_it_names(name: str) -> None:
    assert getattr(sparsebench.plugin, name) is not None


def test_a_name_that_it_does_not_have() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Tensor_'"):
        _ = sparsebench.plugin.Tensor_  # type: ignore[attr-defined]
