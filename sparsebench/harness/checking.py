"""Verification without timing: the conformance grids of backends and methods, and every row of a suite."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sparsebench.harness.crew import Crew, Limits
from sparsebench.harness.plan import Plan
from sparsebench.harness.runner import PATIENCE
from sparsebench.harness.server import Failure
from sparsebench.harness.suite import Suite
from sparsebench.registry import Registry, entry_to_wire

THREADS = 2  # the grid compares one thread with two
Tell = Callable[[str, int, int], None]  # backend, checks done, checks in all


@dataclass(frozen=True)
class Checked:
    """What became of one check of one backend, or of one row of a suite."""

    backend: str
    check: str
    status: str
    reason: str = ""
    kind: str = "backend"


def check_backends(names: Sequence[str], registry: Registry, tell: Tell, limits: Limits) -> Iterator[Checked]:
    """Run the conformance grid over backends; a check that crashes or hangs costs only itself."""
    found = {name: registry.find("backends", name) for name in names}
    plan = Plan(Suite("check", "", "", (), ""), [], {}, found, {})
    with tempfile.TemporaryDirectory() as folder, Crew(plan, Path(folder), 0, THREADS, limits) as crew:
        for name, (entry, _) in found.items():
            missing = entry.missing()
            if missing:
                yield Checked(name, "all", "skipped", missing)
            else:
                yield from _grid(crew, name, tell)
                crew.dismiss(name)


def check_methods(names: Sequence[str], registry: Registry, tell: Tell, limits: Limits) -> Iterator[Checked]:
    """Train each method in small, under a strict host, over optimizers, budgets and kernels."""
    plan = Plan(Suite("check", "", "", (), ""), [], {}, {}, {})
    with tempfile.TemporaryDirectory() as folder, Crew(plan, Path(folder), 0, 1, limits) as crew:
        for name in names:
            entry, options = registry.find("methods", name)
            request = {"method": entry_to_wire("methods", entry), "options": options}
            for made in _grid(crew, name, tell, "method_check", request):
                yield replace(made, kind="method")
            crew.dismiss(name)


def _grid(
    crew: Crew, name: str, tell: Tell, do: str = "check", more: Mapping[str, Any] = MappingProxyType({})
) -> Iterator[Checked]:
    try:
        checks = crew.ask(name, {"do": f"{do}s"})["names"]
    except Failure as failure:
        yield Checked(name, "all", failure.status, failure.reason)
        return
    if not checks:
        yield Checked(name, "all", "skipped", "no check goes with the ops, dtypes and patterns of its spec")
    ends: Counter[str] = Counter()
    for index, check in enumerate(checks):
        tell(name, index, len(checks))
        if ends["timeout"] >= PATIENCE:
            yield Checked(name, check, "timeout", f"not tried: it hung in {PATIENCE} checks before")
            continue
        try:
            answer = crew.ask(name, {"do": do, "index": index, **more})
            made = Checked(name, check, answer["status"], answer["reason"] or "")
        except Failure as failure:
            made = Checked(name, check, failure.status, failure.reason)
        ends[made.status] += 1
        yield made
    tell(name, len(checks), len(checks))


def check_plan(plan: Plan, tell: Tell, limits: Limits) -> Iterator[Checked]:
    """Bind and verify every row of a plan once, and time nothing."""
    rows = sum(len(plan.variants[cell.key]) for cell in plan.cells)
    done = 0
    hangs: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for threads in sorted({cell.threads for cell in plan.cells}):
            with Crew(plan, Path(folder), 0, threads, limits) as crew:
                for cell in (c for c in plan.cells if c.threads == threads):
                    for variant in plan.variants[cell.key]:
                        tell(cell.case.name, done, rows)
                        done += 1
                        if (cell.key, variant) in plan.barred:
                            yield Checked(variant, cell.key, *plan.barred[cell.key, variant])
                            continue
                        if hangs[variant] >= PATIENCE:
                            yield Checked(variant, cell.key, "timeout", f"not tried: it hung in {PATIENCE} rows before")
                            continue
                        try:
                            crew.ensure_oracle(cell)
                            crew.ask(variant, {"do": "prepare", "order": crew.order(cell, variant), "once": True})
                            yield Checked(variant, cell.key, "ok")
                        except Failure as failure:
                            hangs[variant] += failure.status == "timeout"
                            yield Checked(variant, cell.key, failure.status, failure.reason)
