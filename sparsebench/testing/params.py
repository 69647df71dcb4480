"""The conformance grid as pytest parameters, for the tests of a plugin.

@pytest.mark.parametrize("check", conformance_params("my-kernel"))
def test_conformance(check):
    check()
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsebench.errors import UsageError
from sparsebench.plugin import Backend, BackendSpec
from sparsebench.registry import load_registry
from sparsebench.testing.grid import Check, checks_for

if TYPE_CHECKING:
    from _pytest.mark import ParameterSet


@dataclass(frozen=True)
class BackendCheck:
    """A check with its backend; calling it fails the test, skips it with the backend's reason, or returns."""

    make: Any  # called without arguments: the backend, the same one for every check
    spec: BackendSpec
    check: Check

    def __call__(self) -> None:
        """Run; for use inside a test."""
        import pytest

        from sparsebench.testing.conformance import run_check

        result = run_check(self.make(), self.spec, self.check)
        if result.status == "unsupported":
            pytest.skip(result.reason or "unsupported")
        if result.status != "ok":
            pytest.fail(f"{result.name}: {result.status}: {result.reason}", pytrace=False)


def conformance_params(backend: str | Path | BackendSpec) -> list[ParameterSet]:
    """One `pytest.param` for each check: of an installed backend, of all in a plugin file, or of a spec at hand."""
    import pytest

    return [
        pytest.param(BackendCheck(make, spec, check), id=f"{spec.name}: {check.name}".replace(" ", "-"))
        for spec, make in _backends(backend)
        for check in checks_for(spec)
    ]


def _backends(backend: str | Path | BackendSpec) -> list[tuple[BackendSpec, Any]]:
    if isinstance(backend, BackendSpec):
        return [(backend, cache(lambda: _load(backend.load)))]
    if not str(backend).endswith(".py"):
        registry = load_registry()
        entry, _ = registry.find("backends", str(backend))
        return [(entry.spec, cache(lambda: registry.create("backends", str(backend))))]
    registry = load_registry([backend])
    names = [name for name, entry in registry.backends.items() if entry.source.file == str(Path(backend).resolve())]
    if not names:
        broken = [plugin.error for plugin in registry.plugins if plugin.name == str(Path(backend).resolve())]
        raise UsageError(f"{backend} offers no backend{': ' + broken[0] if broken else ''}")
    return [(registry.backends[name].spec, cache(_maker(registry, name))) for name in names]


def _maker(registry: Any, name: str) -> Any:
    return lambda: registry.create("backends", name)


def _load(load: str) -> Backend:
    module, _, name = load.partition(":")
    made: Backend = getattr(import_module(module), name)()
    return made
