"""Finds plugin modules and asks each for its specs; a module that fails is quarantined and the others go on.

pluggy's entry-point loader has no quarantine, a hook that raises hides the others, and a plugin that failed
validation stays registered. So every module gets a plugin manager of its own here, and every hook is called by
itself. Modules of other people are imported in a short-lived process (`python -P -m sparsebench.discovery PARENT`,
started by `sparsebench.probing`), because an import can hang or exit.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import os
import pkgutil
import re
import sys
import types
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pluggy

from sparsebench import plugin
from sparsebench.errors import PluginError
from sparsebench.host import hash_files
from sparsebench.lifeline import die_with
from sparsebench.plugin import PluginInfo
from sparsebench.problem import DTYPES, OPS

GROUP = "sparsebench"
OURS = "sparsebench"  # the distribution whose modules are imported in this process
KINDS: dict[str, type] = {
    "backends": plugin.BackendSpec,
    "methods": plugin.MethodSpec,
    "allocators": plugin.AllocatorSpec,
    "models": plugin.ModelSpec,
    "datasets": plugin.DatasetSpec,
}
COMPILED_OR_PYTHON = (".py", ".so", ".pyd")
PRECISIONS = ("float32", "bfloat16", "float64")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


class Source(msgspec.Struct, frozen=True):
    """Where a plugin module comes from: an importable name, or a file that gets the module name `module`."""

    module: str
    distribution: str = ""
    version: str = ""
    file: str = ""
    sha256: str = ""

    @property
    def ours(self) -> bool:
        """Whether it comes with sparsebench; a local file never does, whatever its name is."""
        return self.distribution == OURS and not self.file


class Found(msgspec.Struct):
    """What one module offers: kind -> specs as plain data, or why it is quarantined."""

    info: PluginInfo
    specs: dict[str, list[dict[str, Any]]] = {}


def file_source(path: Path) -> Source:
    """A plugin file under a module name made of its stem and content hash, so that two versions never mix."""
    if not path.is_file():
        raise PluginError(f"--plugin {path}: no such file; give the path of a Python file with a sparsebench hook")
    digest = _file_hash(path)
    stem = re.sub(r"\W", "_", path.stem)
    return Source(f"{stem}_{digest[:12]}", distribution=path.stem, file=str(path.resolve()), sha256=digest)


def installed_sources() -> tuple[list[Source], list[Source]]:
    """(our own entry points, other people's), each module named once: a module of ours stays ours."""
    from importlib.metadata import entry_points

    known: dict[str, tuple[str, str]] = {}  # METADATA is read at every question
    seen: dict[str, Source] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda e: e.value):
        source = Source(entry.value)
        if entry.dist is not None:
            name = str(entry.dist.name or "")
            if name not in known:
                known[name] = (name, str(entry.dist.version or ""))
            source = Source(entry.value, *known[name])
        if source.ours or entry.value not in seen:
            seen[entry.value] = source
    return [s for s in seen.values() if s.ours], [s for s in seen.values() if not s.ours]


def import_file(path: str, module: str) -> types.ModuleType:
    """Import a plugin file under `module`, once."""
    if module in sys.modules:
        return sys.modules[module]
    spec = importlib.util.spec_from_file_location(module, path)
    if spec is None or spec.loader is None:
        raise PluginError(f"{path} is not a Python file")
    made = importlib.util.module_from_spec(spec)
    sys.modules[module] = made
    try:
        spec.loader.exec_module(made)
    except BaseException:
        del sys.modules[module]
        raise
    return made


def examine(source: Source) -> list[Found]:
    """Import a source and ask every module in it, in this process. A package's modules fail each on its own."""
    try:
        top = import_file(source.file, source.module) if source.file else importlib.import_module(source.module)
    except BaseException as error:
        _let_through(source, error)
        return [_quarantined(source, source.module, f"import failed: {_sentence(error)}")]
    found = []
    if not hasattr(top, "__path__") or _implements_hooks(top):
        found.append(_ask(source, top))
    for name in _submodules(top):
        try:
            module = importlib.import_module(name)
        except BaseException as error:
            _let_through(source, error)
            found.append(_quarantined(source, name, f"import failed: {_sentence(error)}"))
        else:
            found.append(_ask(source, module))
    return found


def _let_through(source: Source, error: BaseException) -> None:
    """Ctrl-C while our own modules are asked is the person's; what another module raises is that module's doing."""
    if source.ours and isinstance(error, KeyboardInterrupt):
        raise error


def _submodules(top: types.ModuleType) -> Iterator[str]:
    for info in pkgutil.iter_modules(getattr(top, "__path__", [])):
        if not info.name.startswith("_"):
            yield f"{top.__name__}.{info.name}"


def _implements_hooks(module: types.ModuleType) -> bool:
    return any(name.startswith("sparsebench_") for name in vars(module))


def _ask(source: Source, module: types.ModuleType) -> Found:
    """Call every hook of one module by itself and validate what it returns."""
    manager = pluggy.PluginManager("sparsebench")
    manager.add_hookspecs(plugin.Hooks)
    specs: dict[str, list[dict[str, Any]]] = {}
    try:
        manager.register(module)
        manager.check_pending()
        for kind in KINDS:
            for implementation in getattr(manager.hook, f"sparsebench_{kind}").get_hookimpls():
                answer = implementation.function()
                specs[kind] = [validated(kind, spec) for spec in _as_list(kind, answer)]
                _refuse_twins(kind, specs[kind])
    except BaseException as error:
        _let_through(source, error)
        return _quarantined(source, module.__name__, _sentence(error))
    if not specs:
        return _quarantined(
            source, module.__name__, "it implements no hook; decorate sparsebench_backends with @hookimpl"
        )
    return Found(_info(source, module.__name__, getattr(module, "__file__", None)), specs)


def _as_list(kind: str, answer: object) -> list[object]:
    if not isinstance(answer, list):
        raise PluginError(f"sparsebench_{kind} returned {type(answer).__name__}; it must return a list of specs")
    return answer


def _refuse_twins(kind: str, specs: Iterable[dict[str, Any]]) -> None:
    seen: dict[str, str] = {}
    for spec in specs:
        name, load = spec["name"], spec["load"]
        if name in seen:
            raise PluginError(f"it offers {kind[:-1]} {name!r} twice, as {seen[name]} and as {load}; rename one")
        seen[name] = load


def validated(kind: str, spec: object) -> dict[str, Any]:
    """A spec as plain data; raises `PluginError` naming the field that is wrong."""
    wanted = KINDS[kind]
    if not isinstance(spec, wanted):
        raise PluginError(
            f"sparsebench_{kind} returned a {type(spec).__name__}; it must return {wanted.__name__} records"
        )
    try:
        data = msgspec.to_builtins(spec)
        msgspec.convert(data, wanted)
    except (msgspec.ValidationError, TypeError) as error:
        raise PluginError(f"{wanted.__name__} {getattr(spec, 'name', '?')!r}: {error}") from None
    name = data["name"]
    if not _NAME.fullmatch(name):
        raise PluginError(f"{wanted.__name__} name {name!r}: use letters, digits, '.', '-', '_' and '+'")
    if data["api"] != plugin.API:
        raise PluginError(f"{name!r} is written for plugin API {data['api']}; this sparsebench speaks {plugin.API}")
    if not re.fullmatch(r"[\w.]+:[\w.]+", data["load"]):
        raise PluginError(f"{name!r}: load = {data['load']!r}; write 'package.module:object'")
    for key, known in (("ops", OPS), ("dtypes", DTYPES)) if kind == "backends" else ():
        if not data[key] or not set(data[key]) <= set(known):
            raise PluginError(f"{name!r}: {key} = {data[key]!r}; choose from {', '.join(known)}")
    if kind == "backends" and data["precision"] not in PRECISIONS:
        raise PluginError(f"{name!r}: precision = {data['precision']!r}; choose from {', '.join(PRECISIONS)}")
    return data


def _info(source: Source, module: str, file: str | None, error: str = "") -> PluginInfo:
    digest = source.sha256
    if not digest and file and Path(file).is_file():
        # Our own files are covered by the hash of the whole package.
        digest = _file_hash(Path(file)) if source.ours else package_hash(module)
    return PluginInfo(
        name=source.file or module,
        distribution=source.distribution,
        version=source.version,
        sha256=digest,
        status="quarantined" if error else "ok",
        error=error,
    )


def _file_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@cache
def package_hash(module: str) -> str:
    """SHA-256 over the Python and compiled files of the package that an imported module is in, or of its one file.

    The package is the outermost that has an `__init__`; what a plugin does is mostly not in the module with its hook.
    """
    names = module.split(".")
    for top in (".".join(names[:count]) for count in range(1, len(names) + 1)):
        file = getattr(sys.modules.get(top), "__file__", None)
        if file is None:  # a namespace package is shared with other distributions
            continue
        path = Path(file)
        if not hasattr(sys.modules[top], "__path__"):
            return _file_hash(path)
        inside = (p for p in path.parent.rglob("*") if p.suffix in COMPILED_OR_PYTHON and p.is_file())
        return hash_files({f"{top}/{p.relative_to(path.parent).as_posix()}": p for p in inside})
    return ""


def _quarantined(source: Source, module: str, reason: str) -> Found:
    return Found(_info(source, module, source.file or None, reason))


def lost(source: Source, reason: str) -> list[Found]:
    """The record of a source whose process did not answer."""
    return [_quarantined(source, source.module, reason)]


def _sentence(error: BaseException) -> str:
    text = " ".join(str(error).split())[:300]
    return text if isinstance(error, PluginError) else f"{type(error).__name__}: {text}".rstrip(": ")


def main() -> None:
    """Child: examine the source given on stdin and answer on a descriptor of its own, so that prints do no harm."""
    die_with(int(sys.argv[1]))
    request = json.loads(sys.stdin.readline())
    source = msgspec.convert(request["source"], Source)
    found = examine(source)
    with os.fdopen(request["answer"], "wb") as answer:
        answer.write(msgspec.json.encode(found))
    os._exit(0)  # a plugin's threads and atexit hooks are not waited for


if __name__ == "__main__":
    main()
