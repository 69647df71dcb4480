"""The conformance grids as pytest parameters, for the tests of a plugin.

@pytest.mark.parametrize("check", conformance_params("my-kernel"))    # of a method: method_params("my-method")
def test_conformance(check):
    check()
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsebench.errors import UsageError, nearest
from sparsebench.plugin import BackendSpec, MethodSpec
from sparsebench.registry import Entry, Registry, load_registry
from sparsebench.testing.grid import Check, checks_for

if TYPE_CHECKING:
    from _pytest.mark import ParameterSet

    from sparsebench.testing.methods import MethodCheck


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


@dataclass(frozen=True)
class MethodTraining:
    """A check with its method; calling it fails the test, skips it with the budget that cannot be, or returns."""

    make: Any  # called without arguments: a fresh method, for every training
    spec: MethodSpec
    check: MethodCheck

    def __call__(self) -> None:
        """Run; for use inside a test."""
        import pytest

        from sparsebench.testing.methods import run_method_check

        result = run_method_check(self.make, self.spec, self.check)
        if result.status == "unsupported":
            pytest.skip(result.reason or "unsupported")
        if result.status != "ok":
            pytest.fail(f"{result.name}: {result.status}: {result.reason}", pytrace=False)


def method_params(method: str | Path | MethodSpec) -> list[ParameterSet]:
    """One `pytest.param` for each check: of an installed method, of all in a plugin file, or of a spec at hand."""
    import pytest

    from sparsebench.testing.methods import method_checks

    return [
        pytest.param(MethodTraining(make, spec, check), id=f"{spec.name}: {check.name}".replace(" ", "-"))
        for spec, make in _offered("methods", method)
        for check in method_checks()
    ]


def conformance_params(backend: str | Path | BackendSpec) -> list[ParameterSet]:
    """One `pytest.param` for each check: of an installed backend, of all in a plugin file, or of a spec at hand."""
    import pytest

    return [
        pytest.param(BackendCheck(make, spec, check), id=f"{spec.name}: {check.name}".replace(" ", "-"))
        for spec, make in _offered("backends", backend, cache)
        for check in checks_for(spec)
    ]


def all_params(what: str | Path) -> list[ParameterSet]:
    """The checks of every backend and method of a plugin file, of an installed name, or of a distribution.

    UsageError if that has neither.
    """
    make = {"backends": conformance_params, "methods": method_params}
    if str(what).endswith(".py"):
        registry, file = load_registry([what]), str(Path(what).resolve())
        kinds = [kind for kind in make if any(e.source.file == file for e in getattr(registry, kind).values())]
        if not kinds:
            broken = [plugin.error for plugin in registry.plugins if plugin.name == file and plugin.error]
            raise UsageError(f"{what} offers no backend and no method{': ' + broken[0] if broken else ''}")
        return [param for kind in kinds for param in make[kind](what)]
    registry = load_registry()
    found: list[tuple[str, str]] = []
    for kind in make:
        entries: dict[str, Entry] = getattr(registry, kind)
        if str(what).partition("@")[0] in entries:
            found.append((kind, str(what)))
        else:
            found += [(kind, name) for name, entry in entries.items() if entry.plugin.distribution == str(what)]
    if not found:
        known = {*registry.backends, *registry.methods}
        raise UsageError(f"no backend, method or distribution is named {str(what)!r}{nearest(str(what), known)}")
    return [param for kind, name in found for param in make[kind](name)]


def _offered(kind: str, what: Any, shared: Callable[[Any], Any] = lambda make: make) -> list[tuple[Any, Any]]:
    """(spec, maker) of a spec at hand, of an installed name, or of everything of that kind in a plugin file."""
    if not isinstance(what, str | Path):
        return [(what, shared(lambda: _load(what.load)))]
    if not str(what).endswith(".py"):
        registry = load_registry()
        entry, options = registry.find(kind, str(what))
        spec = replace(entry.spec, parameters=options) if kind == "methods" else entry.spec
        return [(spec, shared(_maker(registry, kind, str(what))))]
    registry, file = load_registry([what]), str(Path(what).resolve())
    entries: dict[str, Entry] = getattr(registry, kind)
    names = [name for name, entry in entries.items() if entry.source.file == file]
    if not names:
        broken = [plugin.error for plugin in registry.plugins if plugin.name == file]
        raise UsageError(f"{what} offers no {kind[:-1]}{': ' + broken[0] if broken else ''}")
    return [(entries[name].spec, shared(_maker(registry, kind, name))) for name in names]


def _maker(registry: Registry, kind: str, name: str) -> Any:
    return lambda: registry.create(kind, name)


def _load(load: str) -> Any:
    module, _, name = load.partition(":")
    return getattr(import_module(module), name)()
