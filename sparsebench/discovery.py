"""Finds plugin modules and asks each for its specs; a module that fails is quarantined and the others go on.

pluggy's entry-point loader has no quarantine, a hook that raises hides the others, and a plugin that failed
validation stays registered. So every module gets a plugin manager of its own here, and every hook is called by
itself. Modules of other people are imported in a short-lived process (`python -m sparsebench.discovery`), because an
import can hang or exit.
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
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import msgspec
import pluggy

from sparsebench import plugin
from sparsebench.errors import PluginError
from sparsebench.plugin import PluginInfo
from sparsebench.problem import DTYPES, OPS

GROUP = "sparsebench"
KINDS: dict[str, type] = {
    "backends": plugin.BackendSpec,
    "methods": plugin.MethodSpec,
    "allocators": plugin.AllocatorSpec,
    "models": plugin.ModelSpec,
    "datasets": plugin.DatasetSpec,
}
PRECISIONS = ("float32", "bfloat16", "float64")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


class Source(msgspec.Struct, frozen=True):
    """Where a plugin module comes from: an importable name, or a file that gets the module name `module`."""

    module: str
    distribution: str = ""
    version: str = ""
    file: str = ""
    sha256: str = ""


class Found(msgspec.Struct):
    """What one module offers: kind -> specs as plain data, or why it is quarantined."""

    info: PluginInfo
    specs: dict[str, list[dict[str, Any]]] = {}


def file_source(path: Path) -> Source:
    """A plugin file under a module name made of its stem and content hash, so that two versions never mix."""
    if not path.is_file():
        raise PluginError(f"--plugin {path}: no such file; give the path of a Python file with a sparsebench hook")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    stem = re.sub(r"\W", "_", path.stem)
    return Source(f"{stem}_{digest[:12]}", distribution=path.stem, file=str(path.resolve()), sha256=digest)


def installed_sources() -> tuple[list[Source], list[Source]]:
    """(our own entry points, other people's), each named once."""
    seen: dict[str, EntryPoint] = {e.value: e for e in entry_points(group=GROUP)}
    ours: list[Source] = []
    theirs: list[Source] = []
    for value, entry in sorted(seen.items()):
        name = entry.dist.name if entry.dist else ""
        source = Source(value, name, entry.dist.version if entry.dist else "")
        (ours if name == "sparsebench" else theirs).append(source)
    return ours, theirs


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
        return [_quarantined(source, source.module, f"import failed: {_sentence(error)}")]
    found = []
    if not hasattr(top, "__path__") or _implements_hooks(top):
        found.append(_ask(source, top))
    for name in _submodules(top):
        try:
            module = importlib.import_module(name)
        except BaseException as error:
            found.append(_quarantined(source, name, f"import failed: {_sentence(error)}"))
        else:
            found.append(_ask(source, module))
    return found


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
    except BaseException as error:
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
        digest = hashlib.sha256(Path(file).read_bytes()).hexdigest()
    return PluginInfo(
        name=source.file or module,
        distribution=source.distribution,
        version=source.version,
        sha256=digest,
        status="quarantined" if error else "ok",
        error=error,
    )


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
    request = json.loads(sys.stdin.readline())
    source = msgspec.convert(request["source"], Source)
    found = examine(source)
    with os.fdopen(request["answer"], "wb") as answer:
        answer.write(msgspec.json.encode(found))
    sys.stdout.flush()
    os._exit(0)  # a plugin's threads and atexit hooks are not waited for


if __name__ == "__main__":
    main()
