"""What is listed, as tables that fit a terminal and as JSON."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sparsebench.cli.list import COLUMNS, WIDTH, table
from sparsebench.harness.suite import suite_names

Call = Callable[..., Any]
PLUGIN = """
from sparsebench.plugin import BackendSpec, hookimpl

@hookimpl
def sparsebench_backends():
    return [BackendSpec(name="tiny", summary="one", load="a:B", ops=("linear",), requires=("no_such_thing",))]
"""


@pytest.mark.parametrize("kind", COLUMNS)
def test_every_list_fits_and_says_what_to_try_next(call: Call, kind: str) -> None:
    code, out, err = call("list", kind)
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= WIDTH
    assert "Next: sparsebench" in out


@pytest.mark.parametrize("kind", COLUMNS)
def test_json_is_an_array_of_objects_with_a_name(call: Call, kind: str) -> None:
    code, out, _ = call("list", kind, "--json")
    rows = json.loads(out)
    assert code == 0
    assert rows
    assert all(isinstance(row["name"], str) and row["name"] for row in rows)


def test_a_plugin_file_is_listed_with_what_it_misses(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "tiny.py"
    path.write_text(PLUGIN)
    rows = {row["name"]: row for row in json.loads(call("list", "backends", "--plugin", str(path), "--json").out)}
    assert "no_such_thing is not installed" in rows["tiny"]["missing"]
    assert rows["torch-dense"]["missing"] is None
    assert rows["tiny"]["ops"] == ["linear"]


def test_a_broken_plugin_is_listed_with_its_error(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text("raise RuntimeError('no luck')")
    code, out, _ = call("list", "plugins", "--plugin", str(path), "--json")
    broken = [row for row in json.loads(out) if row["status"] == "quarantined"]
    assert code == 0
    assert [("no luck" in row["error"], row["name"].endswith("broken.py")) for row in broken] == [(True, True)]


def test_what_takes_a_name_of_ours_is_listed_under_its_own(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN.replace("tiny", "torch-dense"))
    seen = call("list", "backends", "--plugin", str(path), "--json")
    rows = {row["name"]: row for row in json.loads(seen.out)}
    assert (rows["torch-dense"]["note"], rows["torch-dense"]["missing"]) == ("", None)
    assert "sparsebench's own" in rows["mine:torch-dense"]["note"]
    assert "mine:torch-dense" in call("list", "backends", "--plugin", str(path)).out


def test_plugins_say_what_they_offer(call: Call) -> None:
    rows = {row["name"]: row for row in json.loads(call("list", "plugins", "--json").out)}
    assert rows["sparsebench.builtin.backends.torch_dense"]["offers"] == "2 backends"
    assert rows["sparsebench.builtin.models.mlp"]["offers"] == "1 model"


def test_suites_say_how_many_cases_they_have(call: Call) -> None:
    rows = {row["name"]: row for row in json.loads(call("list", "suites", "--json").out)}
    assert "kernel" in rows["suite-smoke"]["cases"]
    assert rows["suite-smoke"]["summary"]
    assert list(rows) == suite_names()


def test_the_widest_column_gives_way() -> None:
    rows = [{"name": "a", "summary": "word " * 60, "missing": "thing " * 30}]
    lines = table(rows, ("name", "summary", "missing")).splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert sum(line.count("word") for line in lines) == 60
    assert sum(line.count("thing") for line in lines) == 30


def test_an_empty_list_says_so() -> None:
    assert table([], ("name",)) == "nothing found"
