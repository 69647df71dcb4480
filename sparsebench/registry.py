"""The registry: what is installed, by name; what cannot run here and why; and the way from a name to an object."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from sparsebench import discovery
from sparsebench.discovery import KINDS, Found, Source
from sparsebench.errors import PluginError, UsageError, nearest
from sparsebench.host import cpu_flags
from sparsebench.plugin import PluginInfo

PROBE_SECONDS = 20.0  # importing torch takes 2 s on a cold machine; a plugin may need it to answer


@dataclass(frozen=True)
class Entry:
    """One thing that a plugin offers: its spec, the plugin, and the file to import first if it is a local one."""

    spec: Any
    plugin: PluginInfo
    source: Source

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
    """Everything that was found. Names are short while unique, else `distribution:name`."""

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
        if base not in entries:
            twins = [full for full in entries if full.partition(":")[2] == base]
            if twins:
                raise UsageError(f"{kind[:-1]} {base!r} is offered twice; say which: {' or '.join(twins)}")
            broken = sum(p.status != "ok" for p in self.plugins)
            hint = f" ({broken} quarantined: see `sparsebench list plugins`)" if broken else ""
            raise UsageError(f"no {kind[:-1]} is named {base!r}{nearest(base, entries)}{hint}")
        return entries[base], _options(name, text, getattr(entries[base].spec, "options", {}))

    def create(self, kind: str, name: str) -> Any:
        """Import what `name` loads and call it, without arguments but for the options in the name."""
        entry, options = self.find(kind, name)
        missing = entry.missing()
        if missing:
            raise UsageError(f"{kind[:-1]} {name!r} cannot run here: {missing}")
        return entry.load()(**options)


def load_registry(files: Iterable[str | Path] = (), seconds: float | None = None) -> Registry:
    """Find all plugins: ours, the installed ones, and local `files`. Broken ones are quarantined, not raised.

    Other people's modules have `seconds` to be imported (20 unless given).
    With `SPARSEBENCH_STRICT_PLUGINS=1` a broken plugin raises `PluginError` instead.
    """
    ours, theirs = discovery.installed_sources()
    found = [(source, each) for source in ours for each in discovery.examine(source)]
    foreign = [*theirs, *(discovery.file_source(Path(f)) for f in files)]
    found += [
        (source, each)
        for source, answers in zip(foreign, _probe(foreign, seconds or PROBE_SECONDS), strict=True)
        for each in answers
    ]
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


def _table(kind: str, found: list[tuple[Source, Found]]) -> dict[str, Entry]:
    entries = [
        Entry(msgspec.convert(data, KINDS[kind]), each.info, source)
        for source, each in found
        for data in each.specs.get(kind, [])
    ]
    names = [entry.spec.name for entry in entries]
    table: dict[str, Entry] = {}
    for entry in sorted(entries, key=lambda e: e.spec.name):
        twin = names.count(entry.spec.name) > 1
        key = f"{entry.plugin.distribution}:{entry.spec.name}" if twin else entry.spec.name
        if key in table:
            raise PluginError(
                f"{table[key].plugin.name} and {entry.plugin.name} both offer {kind[:-1]} {key!r}; rename one"
            )
        table[key] = entry
    return table


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


def _probe(sources: list[Source], seconds: float) -> list[list[Found]]:
    """Examine other people's modules, each in a process of its own, a few at a time."""
    with ThreadPoolExecutor(max_workers=max(2, os.cpu_count() or 1)) as pool:
        return list(pool.map(lambda source: _probe_one(source, seconds), sources))


def _probe_one(source: Source, seconds: float) -> list[Found]:
    process, answer = _start_probe(source)
    return _finish_probe(source, process, answer, seconds)


def _start_probe(source: Source) -> tuple[subprocess.Popen[bytes], Any]:
    answer = tempfile.TemporaryFile()  # noqa: SIM115  read after the process has ended
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "sparsebench.discovery"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=[answer.fileno()],
        start_new_session=True,
    )
    assert process.stdin is not None
    request = {"source": msgspec.to_builtins(source), "answer": answer.fileno()}
    process.stdin.write(json.dumps(request).encode() + b"\n")
    process.stdin.close()
    return process, answer


def _finish_probe(source: Source, process: subprocess.Popen[bytes], answer: Any, seconds: float) -> list[Found]:
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        code = None
    finally:
        _kill_group(process)
    with answer:
        answer.seek(0)
        text = answer.read()
    if code is None:
        return discovery.lost(source, f"its import did not end within {seconds:g} s")
    if not text:
        how = f"was killed by signal {-code}" if code < 0 else f"exited with code {code}"
        return discovery.lost(source, f"its import {how}")
    return msgspec.json.decode(text, type=list[Found])


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):  # the whole group may have ended
        os.killpg(process.pid, 9)
    process.wait()


@cache
def _importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


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
