"""In what two runs are not alike: hosts, suites, definitions of cells, names of variants; as sentences or fields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sparsebench.runs.records import CellInfo, RunInfo
from sparsebench.runs.sides import Digest
from sparsebench.runs.summary import MISSING

TOLD = ("kind", "op", "title", "baseline", "useful_flop", "dense_flop", "products", "least_bytes")  # of a cell


def fingerprint_differences(base: RunInfo, head: RunInfo) -> list[str]:
    """The fields in which the stable descriptions of two hosts differ, with both values."""
    old, new = (_flat(info.host.get("fingerprint", {})) for info in (base, head))
    fields = dict.fromkeys((*old, *new))
    return [
        f"{field}: {old.get(field, 'not given')} / {new.get(field, 'not given')}"
        for field in fields
        if old.get(field) != new.get(field)
    ]


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as one, keys joined by dots; lists whose order means nothing as text."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{name}.")
        else:
            flat[name] = " ".join(map(str, value)) if isinstance(value, list | tuple) else value
    return flat


def version_difference(base: CellInfo, head: CellInfo) -> str:
    """What changed in the definition of a cell, by field where a field shows it; '' if the versions are one."""
    if base.version == head.version:
        return ""
    changed = [name for name in TOLD if getattr(base, name) != getattr(head, name)]
    told = ", ".join(f"{name}: {getattr(base, name)} / {getattr(head, name)}" for name in changed)
    where = told or "in a parameter that run.json does not spell out; compare the suites"
    return f"the case itself changed (version {base.version} -> {head.version}; {where})"


def precision_difference(base: RunInfo, head: RunInfo, variant: str) -> str:
    """That a variant computes in another class of precision than before; '' if it does not."""
    was, now = (run.precision.get(variant, "float32") for run in (base, head))
    return f"another precision class ({was} -> {now})" if was != now else ""


def plan_differences(base: Digest, head: Digest) -> list[str]:
    """Sentences on suites, on cells that only one run has, and on variants that may have been renamed."""
    notes = []
    old, new = (str(run.info.suite.get("name", "")) for run in (base, head))
    if old != new:
        notes.append(f"the runs are of different suites, {old} and {new}: only cells that both have are compared")
    both = base.sides.keys() & head.sides.keys()
    for side, run in (("base", base), ("head", head)):
        alone = len(run.sides) - len(both)
        if alone:
            notes.append(f"{alone} of {len(run.sides)} cells of {side} are not in the other run")
    return notes + [
        f"{gone} is only in base and {come} only in head, in the same {cells} cells: "
        f"if it was renamed, add --rename {gone}={come}"
        for gone, come, cells in _renamings(base, head, both)
    ]


def _renamings(base: Digest, head: Digest, both: set[str]) -> Iterator[tuple[str, str, int]]:
    """(old name, new name, cells) where one variant went and one came in exactly the same cells."""
    went, came = (_alone(one, other, both) for one, other in ((base, head), (head, base)))
    for gone, cells in went.items():
        fitting = [name for name, found in came.items() if found == cells]
        rivals = [name for name, found in went.items() if found == cells]
        if len(fitting) == len(rivals) == 1:
            yield gone, fitting[0], len(cells)


def _alone(run: Digest, other: Digest, both: set[str]) -> dict[str, set[str]]:
    """Variant -> the common cells that it is in, of the variants that the other run has in no common cell."""
    found: dict[str, set[str]] = {}
    known = {variant for key in both for variant in other.sides[key]}
    for key in both:
        for variant, side in run.sides[key].items():
            if variant not in known and side.status != MISSING:
                found.setdefault(variant, set()).add(key)
    return found
