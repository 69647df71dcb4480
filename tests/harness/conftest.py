"""Where the small suite and the plugins that misbehave are, and plans over backends that nobody has to install."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from sparsebench.discovery import Source
from sparsebench.harness.plan import Plan, Selection, make_plan
from sparsebench.harness.suite import parse_suite
from sparsebench.plugin import AllocatorSpec, BackendSpec, DatasetSpec, MethodSpec, ModelSpec, PluginInfo
from sparsebench.registry import Entry, Registry


@pytest.fixture(scope="session")
def tiny_suite() -> str:
    """Path of a suite file with one problem and two passes, one block."""
    return str(Path(__file__).with_name("tiny.toml"))


@pytest.fixture(scope="session")
def adversarial() -> Path:
    """The folder of plugins that misbehave, one way each."""
    return Path(__file__).parents[1] / "adversarial"


@pytest.fixture(scope="session")
def backend() -> Callable[..., Entry]:
    """Makes the registry entry of a backend that loads nothing."""

    def make(name: str, *, file: str = "", **spec: Any) -> Entry:
        made = BackendSpec(name=name, summary=name, load="nowhere:Backend", ops=("linear", "conv2d"), **spec)
        return Entry(made, PluginInfo(name=file or f"plugin.{name}"), Source(f"plugin.{name}", file=file))

    return make


@pytest.fixture(scope="session")
def registry(backend: Callable[..., Entry]) -> Registry:
    """Four backends, one that lacks a package, one of a file; one model, data set, method and allocator."""
    rest: Mapping[str, Any] = {
        "models": ModelSpec(name="mlp", summary="", load="a:b", inputs="features"),
        "datasets": DatasetSpec(name="digits", summary="", load="a:b", licence="", classes=10),
        "methods": MethodSpec(name="static", summary="", load="a:b", kind="", source=""),
        "allocators": AllocatorSpec(name="uniform", summary="", load="a:b", source=""),
    }
    made = [
        backend("dense"),
        backend("csr"),
        backend("cpp", options={"isa": ("base", "avx2")}),
        backend("lacking", requires=("no_such_package",)),
        backend("local", file="/tmp/local.py"),
    ]
    return Registry(
        backends={entry.spec.name: entry for entry in made},
        **{kind: {spec.name: Entry(spec, PluginInfo(name=kind), Source(kind))} for kind, spec in rest.items()},
    )


@pytest.fixture(scope="session")
def planned(registry: Registry) -> Callable[..., Plan]:
    """Plans the cases of a suite whose baseline is `dense`, over that registry."""

    def make(cases: str, *, head: str = "", files: tuple[str, ...] = (), **selection: Any) -> Plan:
        text = f'schema = 1\n[suite]\nname = "mine"\nbaseline = "dense"\n{head}\n{cases}'
        return make_plan(parse_suite(text, "mine.toml"), registry, Selection(**selection), files)

    return make
