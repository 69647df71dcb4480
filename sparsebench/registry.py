"""The registry: what is installed, by name; what cannot run here and why; and the way from a name to an object."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from sparsebench import discovery
from sparsebench.discovery import KINDS, Found, Source
from sparsebench.errors import PluginError, UsageError, nearest
from sparsebench.host import cpu_flags
from sparsebench.plugin import PluginInfo


@dataclass(frozen=True)
class Entry:
    """One thing that a plugin offers: its spec, the plugin, and the file to import first if it is a local one.

    `note` says why it is not listed under its own name.
    """

    spec: Any
    plugin: PluginInfo
    source: Source
    note: str = ""

    def missing(self) -> str | None:
        """Why this cannot run here (a package or an instruction set that is not there); None if nothing is missing."""
        absent = [name for name in getattr(self.spec, "requires", ()) if not _importable(name)]
        if absent:
            return f"{' and '.join(absent)} {'is' if len(absent) == 1 else 'are'} not installed (`make peers`, or pip)"
        lacking = [flag for flag in getattr(self.spec, "isa", ()) if flag not in cpu_flags()]
        return f"this CPU has no {', '.join(lacking)}" if lacking else None

    def load(self) -> Any:
        """The object that `spec.load` names, not called."""
        return load_object(self.spec.load, self.source)


@dataclass(frozen=True)
class Registry:
    """Everything that was found, by name.

    A name that several plugins offer is listed as `distribution:name` for each, and alone means none of them; but one
    that sparsebench itself offers stays its own, so that suites go on to mean what they say. Two plugins of one
    distribution, or two files of one name, are told apart as `module:name`.
    """

    backends: Mapping[str, Entry] = field(default_factory=dict)
    methods: Mapping[str, Entry] = field(default_factory=dict)
    allocators: Mapping[str, Entry] = field(default_factory=dict)
    models: Mapping[str, Entry] = field(default_factory=dict)
    datasets: Mapping[str, Entry] = field(default_factory=dict)
    plugins: tuple[PluginInfo, ...] = ()

    def find(self, kind: str, name: str) -> tuple[Entry, dict[str, Any]]:
        """The entry and the options of `name` or `name@key=value,…`; raises `UsageError` with the nearest names."""
        base, _, text = name.partition("@")
        entries: Mapping[str, Entry] = getattr(self, kind)
        head, colon, argument = base.partition(":")
        if colon and base not in entries and getattr(getattr(entries.get(head), "spec", None), "argument", ""):
            return entries[head], {"argument": argument}
        if base not in entries:
            twins = [full for full in entries if full.partition(":")[2] == base]
            if twins:
                raise UsageError(f"{kind[:-1]} {base!r} is offered twice; say which: {' or '.join(twins)}")
            raise UsageError(f"no {kind[:-1]} is named {base!r}{nearest(base, entries)}{self._left_out()}")
        spec = entries[base].spec
        if kind == "methods" or getattr(spec, "parameters", None):
            return entries[base], parameters_of(name, text, spec.parameters)
        if getattr(spec, "argument", ""):
            raise UsageError(f"{kind[:-1]} {base!r} wants {spec.argument} behind a colon, as in {base}:…")
        return entries[base], _options(name, text, getattr(spec, "options", {}))

    def create(self, kind: str, name: str) -> Any:
        """Import what `name` loads and call it, without arguments but for the options in the name.

        Methods are called without: their parameters reach them through their host.
        """
        entry, options = self.find(kind, name)
        missing = entry.missing()
        if missing:
            raise UsageError(f"{kind[:-1]} {name!r} cannot run here: {missing}")
        return entry.load()() if kind == "methods" else entry.load()(**options)

    def _left_out(self) -> str:
        broken = [p for p in self.plugins if p.error]
        if len(broken) == 1:
            return f" (plugin {broken[0].name} is left out: {broken[0].error})"
        return f" ({len(broken)} plugins are left out: see `sparsebench list plugins`)" if broken else ""


def load_registry(files: Iterable[str | Path] = (), seconds: float | None = None) -> Registry:
    """Find all plugins: ours, the installed ones, and local `files`. Broken ones are quarantined, not raised.

    Other people's modules have `seconds` to be imported (20 unless given). A file that is named twice counts once.
    With `SPARSEBENCH_STRICT_PLUGINS=1` a broken plugin raises `PluginError` instead.
    """
    local = {source.module: source for source in (discovery.file_source(Path(f)) for f in files)}
    ours, theirs = discovery.installed_sources()
    found = [(source, each) for source in ours for each in discovery.examine(source)]
    found += _ask_others([*theirs, *local.values()], seconds)
    found = _once(found)
    if os.environ.get("SPARSEBENCH_STRICT_PLUGINS") == "1":
        for _, each in found:
            if each.info.error:
                raise PluginError(f"plugin {each.info.name}: {each.info.error}")
    tables = {kind: _table(kind, found) for kind in KINDS}
    return Registry(**tables, plugins=tuple(each.info for _, each in found))


def load_object(load: str, source: Source) -> Any:
    """Import 'package.module:object'; the module of a plugin file is imported from its file first."""
    if source.file:
        discovery.import_file(source.file, source.module)
    module, _, name = load.partition(":")
    made: Any = importlib.import_module(module)
    for part in name.split("."):
        made = getattr(made, part)
    return made


def _ask_others(foreign: list[Source], seconds: float | None) -> list[tuple[Source, Found]]:
    if not foreign:
        return []
    from sparsebench import probing  # what starts processes takes time to import, and mostly nothing is to be asked

    answers = probing.probe(foreign, seconds or probing.SECONDS)
    return [(source, each) for source, found in zip(foreign, answers, strict=True) for each in found]


def _once(found: list[tuple[Source, Found]]) -> list[tuple[Source, Found]]:
    """Each module once: one entry point may name a package and another a module in it."""
    seen: dict[str, tuple[Source, Found]] = {}
    for source, each in found:
        seen.setdefault(each.info.name, (source, each))
    return [*seen.values()]


def _table(kind: str, found: list[tuple[Source, Found]]) -> dict[str, Entry]:
    named: dict[str, list[Entry]] = {}
    for source, each in found:
        for data in each.specs.get(kind, []):
            entry = Entry(msgspec.convert(data, KINDS[kind]), each.info, source)
            named.setdefault(entry.spec.name, []).append(entry)
    return {key: entry for name in sorted(named) for key, entry in _keys(kind, name, named[name]).items()}


def _keys(kind: str, name: str, twins: list[Entry]) -> dict[str, Entry]:
    """What each of the entries that call themselves `name` is listed as."""
    if len(twins) == 1:
        return {name: twins[0]}
    own = [entry for entry in twins if entry.source.ours]
    if len(own) > 1:
        raise PluginError(f"{own[0].plugin.name} and {own[1].plugin.name} both offer {kind[:-1]} {name!r}; rename one")
    others = [entry for entry in twins if not entry.source.ours]
    note = f"{name!r} alone is sparsebench's own" if own else f"{name!r} alone could be any of {len(twins)}"
    distributions = [entry.plugin.distribution for entry in others]
    keys = {name: own[0]} if own else {}
    for entry in others:
        label = entry.plugin.distribution
        if not label or distributions.count(label) > 1:
            label = entry.source.module if entry.source.file else entry.plugin.name
        keys[f"{label}:{name}"] = replace(entry, note=note)
    return keys


def _options(name: str, text: str, allowed: Mapping[str, tuple]) -> dict[str, Any]:
    chosen: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        key, _, value = part.partition("=")
        if key not in allowed:
            raise UsageError(f"{name}: {key!r} is not an option{nearest(key, allowed) or '; it has none'}")
        values = {str(v): v for v in allowed[key]}
        if value not in values:
            raise UsageError(f"{name}: {key} = {value!r} is not possible{nearest(value, values)}")
        chosen[key] = values[value]
    return chosen


def parameters_of(name: str, text: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """A method's parameters: the defaults of its spec, over them "key=value,…", each of its default's type."""
    chosen = dict(defaults)
    for part in filter(None, text.split(",")):
        key, _, value = part.partition("=")
        if key not in defaults:
            raise UsageError(f"{name}: {key!r} is not a parameter{nearest(key, defaults) or '; it has none'}")
        chosen[key] = _typed(name, key, value, defaults[key])
    return chosen


def _typed(name: str, key: str, value: str, default: Any) -> Any:
    if isinstance(default, bool):
        if value not in ("true", "false"):
            raise UsageError(f"{name}: {key} = {value!r}; write true or false")
        return value == "true"
    try:
        return type(default)(value)
    except ValueError:
        what = "a whole number" if isinstance(default, int) else "a number"
        raise UsageError(f"{name}: {key} = {value!r}; write {what}") from None


@cache
def _importable(name: str) -> bool:
    """Whether the package that `name` begins with is installed: to look for a module in it would import it."""
    top, _, rest = name.partition(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return False
    # Any folder on the path is a namespace package, so one counts only where a part of it is asked for.
    return spec is not None and (spec.origin is not None or bool(rest))


def entry_to_wire(kind: str, entry: Entry) -> dict[str, Any]:
    """An entry as plain data, for a worker that does not look for plugins itself."""
    return {"kind": kind, **msgspec.to_builtins(entry)}


def entry_from_wire(data: Mapping[str, Any]) -> Entry:
    """The entry that `entry_to_wire` wrote."""
    return Entry(
        msgspec.convert(data["spec"], KINDS[data["kind"]]),
        msgspec.convert(data["plugin"], PluginInfo),
        msgspec.convert(data["source"], Source),
    )
