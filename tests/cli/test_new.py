"""`sparsebench new backend` and `new method` make a package, and say what to do with it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Call = Callable[..., Any]


@pytest.mark.parametrize("kind", ["backend", "method"])
def test_makes_a_package_and_says_what_next(call: Call, kind: str, tmp_path: Path) -> None:
    code, out, err = call("new", kind, "frobnicator", "--folder", str(tmp_path))
    assert (code, err) == (0, "")
    made = next(path for path in tmp_path.iterdir() if path.is_dir())
    assert (made / "pyproject.toml").is_file()
    assert (made / "README.md").is_file()
    assert list(made.rglob("test_*.py"))
    assert f"cd {made}" in out
    assert "sparsebench check frobnicator" in out
    assert f"sparsebench run suite-smoke --{kind} frobnicator" in out
    hook = {"backend": "sparsebench_backends", "method": "sparsebench_methods"}[kind]
    assert hook in (made / "frobnicator" / "__init__.py").read_text()


def test_does_not_overwrite(call: Call, tmp_path: Path) -> None:
    call("new", "backend", "frobnicator", "--folder", str(tmp_path))
    code, _, err = call("new", "backend", "frobnicator", "--folder", str(tmp_path))
    assert (code, err.count("\n")) == (2, 1)


def test_only_an_installed_module_of_that_name_is_in_the_way(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site" / "just_a_folder").mkdir(parents=True)
    (tmp_path / "site" / "my_own_file.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "site")
    folder = str(tmp_path / "made")
    for name in ("just-a-folder", "my-own-file"):
        assert call("new", "backend", name, "--folder", folder).code == 0
    for name in ("click", "json", "sys"):
        code, _, err = call("new", "backend", name, "--folder", folder)
        assert (code, "already has a module" in err) == (2, True), name


def test_a_name_that_cannot_be_one(call: Call, tmp_path: Path) -> None:
    code, _, err = call("new", "backend", "9 lives!", "--folder", str(tmp_path))
    assert (code, err.count("\n")) == (2, 1)
    assert not list(tmp_path.iterdir())


def test_a_kind_that_is_none_names_the_nearest(call: Call, tmp_path: Path) -> None:
    for given, told in (("methd", "did you mean 'method'?"), ("dataset", "known: backend, method")):
        code, out, err = call("new", given, "frobnicator", "--folder", str(tmp_path))
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert told in err
    assert not list(tmp_path.iterdir())
