"""One module is asked for its specs: what it may answer, and how a mistake is told; its neighbours go on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sparsebench import discovery
from sparsebench.discovery import Found, Source, examine, file_source, import_file
from sparsebench.errors import PluginError

HEAD = "from sparsebench.plugin import *\n"
HOOK = "@hookimpl\ndef sparsebench_backends():\n    return "
GOOD = {"name": '"good"', "summary": '"one"', "load": '"a:B"', "ops": '("linear",)'}


def spec(**changes: str) -> str:
    fields = {key: value for key, value in (GOOD | changes).items() if value}
    return f"BackendSpec({', '.join(f'{key}={value}' for key, value in fields.items())})"


@pytest.fixture
def ask(tmp_path: Path) -> Callable[[str], Found]:
    """What is found in a plugin file of this text, examined in this process."""

    def asked(text: str) -> Found:
        path = tmp_path / "plugin.py"
        path.write_text(text)
        (found,) = examine(file_source(path))
        assert (found.info.status == "ok") == (found.info.error == "") == bool(found.specs)
        return found

    return asked


Ask = Callable[[str], Found]


def test_a_right_answer_is_kept_as_plain_data(ask: Ask) -> None:
    other = spec(name='"other"')
    found = ask(HEAD + HOOK + f"[{spec()}, {other}]")
    assert [made["name"] for made in found.specs["backends"]] == ["good", "other"]
    assert found.specs["backends"][0]["dtypes"] == ("float32",)
    assert found.info.name.endswith("plugin.py")
    assert found.info.distribution == "plugin"
    assert len(found.info.sha256) == 64


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("1 / 0", "import failed: ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "import failed: SystemExit: 3"),
        ("def broken(:", "import failed: SyntaxError"),
        ("import no_such_lib", "import failed: ModuleNotFoundError: No module named 'no_such_lib'"),
        ("raise ValueError('two\\nlines')", "import failed: ValueError: two lines"),
        ("x = 3", "it implements no hook; decorate sparsebench_backends with @hookimpl"),
        (HEAD + "def sparsebench_backends():\n    return []", "it implements no hook"),
        (HEAD + HOOK.replace("backends", "backend") + "[]", "unknown hook 'sparsebench_backend'"),
        (HEAD + HOOK + "1 / 0", "ZeroDivisionError: division by zero"),
        (HEAD + HOOK + "None", "sparsebench_backends returned NoneType; it must return a list of specs"),
        (HEAD + HOOK + spec(), "sparsebench_backends returned BackendSpec; it must return a list of specs"),
        (HEAD + HOOK + "['x']", "sparsebench_backends returned a str; it must return BackendSpec records"),
        (HEAD + HOOK + "[ModelSpec(name='m', summary='', load='a:b', inputs='features')]",
         "sparsebench_backends returned a ModelSpec; it must return BackendSpec records"),
    ],
)  # fmt: skip
def test_a_module_that_cannot_be_used_says_why_in_one_line(ask: Ask, text: str, error: str) -> None:
    found = ask(text)
    assert found.info.error.startswith(error) or error in found.info.error
    assert "\n" not in found.info.error
    assert found.info.status == "quarantined"


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"name": "3"}, "Expected `str`, got `int`"),
        ({"name": '"two words"'}, "BackendSpec name 'two words': use letters, digits, '.', '-', '_' and '+'"),
        ({"name": '"at@sign"'}, "BackendSpec name 'at@sign'"),
        ({"name": '"co:lon"'}, "BackendSpec name 'co:lon'"),
        ({"name": '""'}, "BackendSpec name ''"),
        ({"ops": '"linear"'}, "BackendSpec 'good'"),
        ({"ops": '("lineal",)'}, "'good': ops = ('lineal',); choose from linear, conv2d"),
        ({"ops": "()"}, "'good': ops = (); choose from linear, conv2d"),
        ({"dtypes": '("float16",)'}, "'good': dtypes = ('float16',); choose from float32, float64"),
        ({"precision": '"exact"'}, "'good': precision = 'exact'; choose from float32, bfloat16, float64"),
        ({"api": "2"}, "'good' is written for plugin API 2; this sparsebench speaks 1"),
        ({"load": '"no colon"'}, "'good': load = 'no colon'; write 'package.module:object'"),
        ({"load": ""}, "missing 1 required keyword-only argument: 'load'"),
        ({"spelt": "1"}, "unexpected keyword argument 'spelt'"),
        ({"options": "{'isa': 'avx2'}"}, "BackendSpec 'good'"),
    ],
    ids=str,
)
def test_a_spec_with_a_mistake_names_the_field(ask: Ask, changes: dict[str, str], error: str) -> None:
    assert error in ask(HEAD + HOOK + f"[{spec(**changes)}]").info.error


def test_a_package_is_asked_module_by_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "a_whole_package"
    package.mkdir()
    for name, text in {
        "__init__": "",
        "right": HEAD + HOOK + f"[{spec()}]",
        "broken": "raise RuntimeError('no luck')",
        "silent": "x = 3",
        "_private": "raise RuntimeError('private modules are not asked')",
    }.items():
        (package / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    found = {f.info.name.rpartition(".")[2]: f for f in examine(Source("a_whole_package", "dist", "1.0"))}
    assert sorted(found) == ["broken", "right", "silent"]
    assert found["right"].specs["backends"][0]["name"] == "good"
    assert found["broken"].info.error == "import failed: RuntimeError: no luck"
    assert found["silent"].info.status == "quarantined"
    assert {f.info.distribution for f in found.values()} == {"dist"}


def test_a_package_may_have_its_hooks_in_its_init(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "hooks_in_init"
    package.mkdir()
    (package / "__init__.py").write_text(HEAD + HOOK + f"[{spec()}]")
    monkeypatch.syspath_prepend(tmp_path)
    (found,) = examine(Source("hooks_in_init"))
    assert found.specs["backends"][0]["name"] == "good"


def test_a_file_is_imported_once_and_not_kept_when_it_fails(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.py", tmp_path / "bad.py"
    good.write_text("made = object()")
    bad.write_text("raise RuntimeError('no luck')")
    first, again = (import_file(str(good), "imported_once") for _ in range(2))
    assert first.made is again.made
    with pytest.raises(RuntimeError, match="no luck"):
        import_file(str(bad), "never_imported")
    assert "never_imported" not in sys.modules
    del sys.modules["imported_once"]


def test_a_file_gets_a_name_of_its_content(tmp_path: Path) -> None:
    path = tmp_path / "my-kernel 2.py"
    path.write_text("one")
    one = file_source(path)
    path.write_text("two")
    two = file_source(path)
    assert one.module != two.module
    assert one.module.isidentifier()
    assert one.distribution == "my-kernel 2"
    assert one.file == str(path)


@pytest.mark.parametrize("name", ["nothing.py", "."])
def test_a_file_that_is_not_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(PluginError, match="no such file; give the path of a Python file with a sparsebench hook"):
        file_source(tmp_path / name)


def test_our_own_modules_are_told_from_other_peoples() -> None:
    ours, theirs = discovery.installed_sources()
    assert {source.module for source in ours} >= {"sparsebench.builtin.backends", "sparsebench.builtin.models"}
    assert all(source.ours for source in ours)
    assert not any(source.ours for source in theirs)


def test_every_kind_of_hook_is_asked(ask: Ask) -> None:
    specs: dict[str, tuple[str, dict[str, Any]]] = {
        "backends": ("BackendSpec", {"ops": ("linear",)}),
        "methods": ("MethodSpec", {"kind": "one-shot", "source": "s"}),
        "allocators": ("AllocatorSpec", {"source": "s"}),
        "models": ("ModelSpec", {"inputs": "features"}),
        "datasets": ("DatasetSpec", {"licence": "l", "classes": 2}),
    }
    text = HEAD
    for kind, (record, rest) in specs.items():
        fields = ", ".join(f"{k}={v!r}" for k, v in {"name": "n", "summary": "", "load": "a:b", **rest}.items())
        text += f"@hookimpl\ndef sparsebench_{kind}():\n    return [{record}({fields})]\n"
    assert ask(text).specs.keys() == specs.keys() == discovery.KINDS.keys()
