"""What `ab` compares: a backend's name with its options, a plugin file, another number of threads, a git revision.

cpp                  a backend             cpp@isa=avx2        with options, as everywhere
my_kernel.py         the only backend in a plugin file; my_kernel.py:NAME if it has several
cpp@threads=2        on so many threads    main:my_kernel.py   the file as it was at a revision
v1.2:cpp             this project's own backend as it was at a revision, built in an environment of its own
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sparsebench.errors import UsageError
from sparsebench.harness.cells import expand
from sparsebench.harness.duelling import looks_within, most_blocks
from sparsebench.harness.expression import matches, why_none
from sparsebench.harness.plan import Plan, Selection, overridden, parts_of
from sparsebench.harness.revisions import built, commit, file_at, is_revision
from sparsebench.harness.suite import Suite
from sparsebench.registry import Entry, Registry, load_registry


@dataclass(frozen=True)
class Side:
    """One of the two: `label` is what its rows are named."""

    label: str
    entry: Entry
    options: dict[str, Any]
    threads: int | None = None
    python: str = ""
    file: str = ""  # the plugin file it came from
    code: str = ""  # of a file its SHA-256, of a revision of this project its commit
    registry: Registry | None = None


def side_of(text: str) -> Side:
    """What a text stands for; raises `UsageError` naming near misses."""
    text, threads = _threads(text)
    name, _, chosen = text.partition("@")
    revision, _, rest = name.rpartition(":")
    options = f"@{chosen}" if chosen else ""
    if name.endswith(".py"):
        side = _of_file(file_at(revision, rest) if revision else Path(name), options)
    elif revision.endswith(".py"):  # FILE.py:NAME, or REVISION:FILE.py:NAME
        earlier, _, file = revision.rpartition(":")
        side = _of_file(file_at(earlier, file) if earlier else Path(revision), f"{rest}{options}")
    elif revision and revision not in _distributions() and is_revision(revision):
        side = replace(_of_registry(f"{rest}{options}", load_registry()), python=built(revision), code=commit(revision))
    else:
        side = _of_registry(f"{name}{options}", load_registry())
    told = f"{text}@threads={threads}" if threads else text
    return replace(side, label=told, threads=threads)


def duel_plan(suite: Suite, sides: Sequence[Side], registry: Registry, selection: Selection) -> Plan:
    """The plan of an `ab`: the cells of a suite in which backends compete, with the two sides as their variants."""
    suite = overridden(suite, selection)
    expression = selection.expression.strip() or suite.default
    able = [cell for cell in expand(suite) if not cell.case.by_method]
    cells = [cell for cell in able if matches(expression, cell)]
    if not cells:
        names = ", ".join(dict.fromkeys(cell.case.name for cell in able))
        told = why_none(expression, able) or f"; cases: {names}"
        raise UsageError(f"{suite.name}: no cell in which backends compete matches -k {expression!r}{told}")
    a, b = _told_apart(sides)
    most = most_blocks(looks_within(selection.blocks))
    cells = [replace(cell, baseline=a, case=replace(cell.case, blocks=most)) for cell in cells]
    found = {label: (side.entry, side.options) for label, side in zip((a, b), sides, strict=True)}
    parts = {cell.key: parts_of(registry, cell) for cell in cells}
    plan = Plan(suite, cells, {cell.key: [a, b] for cell in cells}, found, parts, named=(a, b))
    for label, side in zip((a, b), sides, strict=True):
        if side.threads:
            plan.threads[label] = side.threads
        if side.python:
            plan.pythons[label] = side.python
        missing = side.entry.missing()
        if missing:
            raise UsageError(f"{label}: {missing}")
    return plan


def _told_apart(sides: Sequence[Side]) -> tuple[str, str]:
    """Two labels: of a thing against itself the second says so."""
    a, b = (side.label for side in sides)
    return (a, b) if a != b else (a, f"{b} (again)")


def _threads(text: str) -> tuple[str, int | None]:
    """cpp@isa=avx2,threads=2 -> (cpp@isa=avx2, 2)."""
    name, at, options = text.partition("@")
    kept = [option for option in options.split(",") if not option.startswith("threads=")]
    given = [option.partition("=")[2] for option in options.split(",") if option.startswith("threads=")]
    if not given:
        return text, None
    if len(given) > 1 or not given[0].isdecimal() or int(given[0]) < 1:
        raise UsageError(f"{text}: write threads=N with N at least 1, once")
    return name + (at + ",".join(kept) if kept else ""), int(given[0])


def _of_file(path: Path, name: str) -> Side:
    """A backend of a plugin file: the one that `name` says, or the only one; options may follow."""
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    full = str(path.resolve())
    registry = load_registry([full])
    mine = [found for found, entry in registry.backends.items() if entry.source.file == full]
    wanted, at, options = name.partition("@")
    if not wanted and len(mine) != 1:
        reason = next((p.error for p in registry.plugins if p.status != "ok" and p.error), "")
        what = f"it has {', '.join(mine)}; write {path}:NAME" if mine else f"it has no backend. {reason}".strip()
        raise UsageError(f"{path}: {what}")
    code = hashlib.sha256(path.read_bytes()).hexdigest()
    return replace(_of_registry(f"{wanted or mine[0]}{at}{options}", registry), file=full, code=code)


def _of_registry(name: str, registry: Registry) -> Side:
    entry, options = registry.find("backends", name)
    return Side(name, entry, options, registry=registry)


def _distributions() -> set[str]:
    """What may stand before a colon in a backend's name."""
    return {name.partition(":")[0] for name in load_registry().backends if ":" in name}
