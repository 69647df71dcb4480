"""The tables of methods and allocators on the page are those that the command prints."""

import importlib.util
from pathlib import Path

import pytest

from sparsebench.registry import load_registry

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "methods.md").read_text()
_SPEC = importlib.util.spec_from_file_location("docs_tables", DOCS / "tables.py")
assert _SPEC is not None and _SPEC.loader is not None
tables = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(tables)


def test_the_tables_on_the_page_are_what_the_command_prints() -> None:
    """After a change: `make tables`."""
    assert tables.filled(PAGE) == PAGE


@pytest.mark.parametrize("kind", ["methods", "allocators"])
def test_everything_of_ours_is_in_them(kind: str) -> None:
    entries = getattr(load_registry(), kind)
    assert all(f"| `{name}` | " in PAGE for name, entry in entries.items() if entry.source.ours)


def test_a_page_that_is_out_of_date_is_found() -> None:
    old = PAGE.replace("gradual magnitude pruning along", "abrupt magnitude pruning along")
    assert old != PAGE == tables.filled(old)


def test_every_method_of_ours_says_its_source_proof_and_cost() -> None:
    silent = [
        (name, key)
        for name, entry in load_registry().methods.items()
        if entry.source.ours
        for key in ("source", "proof", "cost")
        if not getattr(entry.spec, key)
    ]
    assert not silent
