"""From a name to an object: options in the name, the nearest names of a misspelt one, and why something cannot run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sparsebench import registry as module
from sparsebench.discovery import Source
from sparsebench.errors import UsageError
from sparsebench.plugin import BackendSpec, ModelSpec, PluginInfo
from sparsebench.registry import Entry, Registry, entry_from_wire, entry_to_wire, load_registry

PLUGIN = """
from sparsebench.plugin import BackendSpec, hookimpl

class Inner:
    class Backend:
        def __init__(self, **options):
            self.options = options

@hookimpl
def sparsebench_backends():
    return [BackendSpec(name="mine", summary="one", load=f"{__name__}:Inner.Backend", ops=("linear",),
                        options={"isa": ("base", "avx2"), "unroll": (1, 2, 4), "fast": (True, False)})]
"""


def entry(name: str, **spec: Any) -> Entry:
    return Entry(
        BackendSpec(name=name, summary="", load="a:b", ops=("linear",), **spec), PluginInfo(name="p"), Source("p")
    )


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plugin") / "mine.py"
    path.write_text(PLUGIN)
    return path


@pytest.fixture(scope="module")
def found(file: Path) -> Registry:
    return load_registry([file])


@pytest.fixture
def run_python() -> Callable[..., str]:
    def run(program: str, *args: str) -> str:
        done = subprocess.run([sys.executable, "-P", "-c", program, *args], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mine", {}),
        ("mine@", {}),
        ("mine@isa=avx2", {"isa": "avx2"}),
        ("mine@unroll=4,isa=base", {"isa": "base", "unroll": 4}),
        ("mine@fast=False", {"fast": False}),
    ],
)
def test_options_follow_the_name_and_have_the_types_of_the_spec(
    found: Registry, name: str, options: dict[str, Any]
) -> None:
    entry, given = found.find("backends", name)
    assert entry.spec.name == "mine"
    assert given == options
    assert found.create("backends", name).options == options


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mine@iso=avx2", "mine@iso=avx2: 'iso' is not an option; did you mean 'isa'?"),
        ("mine@isa=avx3", "mine@isa=avx3: isa = 'avx3' is not possible; did you mean 'avx2'?"),
        ("mine@isa", "mine@isa: isa = '' is not possible; known: avx2, base"),
        ("mine@unroll=3", "mine@unroll=3: unroll = '3' is not possible"),
        ("torch-csr@isa=avx2", "torch-csr@isa=avx2: 'isa' is not an option; it has none"),
        ("miné", "no backend is named 'miné'; did you mean 'mine'"),
        ("torch-dens", "no backend is named 'torch-dens'; did you mean 'torch-dense'"),
    ],
)
def test_what_cannot_be_used_is_said_with_what_can(found: Registry, name: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        found.find("backends", name)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["methods", "allocators", "models", "datasets"])
def test_every_kind_says_what_it_is(found: Registry, kind: str) -> None:
    with pytest.raises(UsageError, match=f"no {kind[:-1]} is named 'xyzzy'; known: "):
        found.find(kind, "xyzzy")


def test_the_built_in_parts_are_there_and_whole(found: Registry) -> None:
    assert {"torch-dense", "torch-csr", "cython", "scipy", "mkl", "sparseprop"} <= found.backends.keys()
    assert {"mlp", "lenet", "resnet18-cifar"} <= found.models.keys()
    assert {"digits", "noise", "mnist", "fashion-mnist"} <= found.datasets.keys()
    assert {"static", "magnitude"} <= found.methods.keys()
    assert "uniform" in found.allocators
    assert [p.error for p in found.plugins if p.error] == []
    assert all(len(p.sha256) == 64 for p in found.plugins), "what a plugin was is in run.json"


def test_what_is_missing_is_said() -> None:
    assert entry("a").missing() is None
    assert entry("a", requires=("json",)).missing() is None
    assert (entry("a", requires=("no_such_lib",)).missing() or "").startswith("no_such_lib is not installed")
    both = entry("a", requires=("no_such_lib", "json", "no_other_lib")).missing() or ""
    assert both.startswith("no_such_lib and no_other_lib are not installed")


def test_an_instruction_set_that_is_not_here_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "cpu_flags", lambda: frozenset({"avx2"}))
    assert entry("a", isa=("avx2",)).missing() is None
    assert entry("a", isa=("avx2", "avx512f", "amx_tile")).missing() == "this CPU has no avx512f, amx_tile"


def test_what_cannot_run_here_is_not_made() -> None:
    lacking = Registry(backends={"a": entry("a", requires=("no_such_lib",))})
    with pytest.raises(UsageError, match="backend 'a' cannot run here: no_such_lib is not installed"):
        lacking.create("backends", "a")


def test_only_names_with_a_distribution_are_twins() -> None:
    twins = Registry(backends={"one:a": entry("a"), "two:a": entry("a")})
    with pytest.raises(UsageError, match="backend 'a' is offered twice; say which: one:a or two:a"):
        twins.find("backends", "a")
    assert twins.find("backends", "two:a@")[1] == {}


@pytest.mark.parametrize(
    "made",
    [
        entry("a", requires=("x",), isa=("avx2",), options={"isa": ("base", 2)}, patterns=("uniform",), peer=True),
        Entry(
            ModelSpec(name="m", summary="", load="a:b", inputs="features"), PluginInfo(name="p"), Source("p", "", "1")
        ),
    ],
    ids=["backend", "model"],
)
def test_an_entry_survives_the_way_to_a_worker(made: Entry) -> None:
    kind = "models" if isinstance(made.spec, ModelSpec) else "backends"
    wire = msgspec.json.decode(msgspec.json.encode(entry_to_wire(kind, made)))
    assert entry_from_wire(wire) == made


LOADS = """
import sys
from sparsebench.registry import load_registry
found = load_registry(sys.argv[1:])
assert "mine" in found.backends, found.plugins
assert not {"torch", "numpy", found.backends["mine"].source.module} & sys.modules.keys()
"""


def test_finding_a_plugin_file_does_not_import_it_here_nor_what_it_needs(
    file: Path, tmp_path: Path, run_python: Callable[..., str]
) -> None:
    heavy = tmp_path / "mine.py"
    heavy.write_text(f"import torch\n{file.read_text()}")
    run_python(LOADS, str(heavy))
