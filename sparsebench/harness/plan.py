"""The plan of a run: which cells, which variants compete in each, and which rows cannot run here, with the reason."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sparsebench.errors import UsageError
from sparsebench.harness.cells import PRODUCTS, TARGETS, Cell, expand, first_values
from sparsebench.harness.expression import matches, why_none
from sparsebench.harness.suite import Suite
from sparsebench.problem import Problem
from sparsebench.registry import Entry, Registry
from sparsebench.runs.records import CellInfo, Sample, Status

PARTS = {
    "model": "models",
    "dataset": "datasets",
    "method": "methods",
    "allocator": "allocators",
    "backend": "backends",
}
Found = tuple[Entry, dict[str, Any]]  # what a name stands for, and the options in it


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What of a suite to run, and what to run instead of what it says; `None` and empty leave it as it is."""

    backends: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    expression: str = ""  # -k; empty: the suite's default
    threads: int | None = None
    blocks: int | None = None
    seed: int | None = None
    quick: bool = False
    shard: tuple[int, int] = (1, 1)


@dataclass
class Plan:
    """All rows of a run. `barred` rows will not run; `probe` adds to them."""

    suite: Suite
    cells: list[Cell]
    variants: dict[str, list[str]]  # cell key -> names
    backends: dict[str, Found]  # variants that are backends
    parts: dict[str, dict[str, Found]]  # cell key -> model, dataset, …
    methods: dict[str, Found] = field(default_factory=dict)  # variants that are methods
    named: tuple[str, ...] = ()  # variants that the user asked for by name
    keep_models: bool = False  # whether trainings leave their models in the run folder
    threads: dict[str, int] = field(default_factory=dict)  # of variants that do not compute with their cell's
    pythons: dict[str, str] = field(default_factory=dict)  # of variants that run in another environment
    barred: dict[tuple[str, str], tuple[Status, str]] = field(default_factory=dict)

    def bar(self, cell: Cell, variant: str, status: Status, reason: str) -> None:
        """Say that a row cannot run."""
        self.barred.setdefault((cell.key, variant), (status, " ".join(reason.split())))

    def running(self, cell: Cell) -> list[str]:
        """The variants of a cell that can run."""
        return [v for v in self.variants[cell.key] if (cell.key, v) not in self.barred]

    def found(self, cell: Cell, variant: str) -> dict[str, Found]:
        """Everything that takes part in a row but the backend of a backend's row, which its worker has loaded."""
        method = {"method": self.methods[variant]} if cell.case.by_method and variant else {}
        return {**self.parts[cell.key], **method}

    def competing(self) -> list[str]:
        """Every variant of any cell, once."""
        return list(dict.fromkeys(variant for cell in self.cells for variant in self.variants[cell.key]))

    def peers(self) -> set[str]:
        """Other people's software that nobody named: what becomes of it does not fail a run."""
        return {v for v, (entry, _) in self.backends.items() if entry.spec.peer} - set(self.named)

    def peer_variants(self) -> list[str]:
        """Other people's sparse software, named or not: the best of it in a cell is what the others are measured by."""
        return [v for v, (entry, _) in self.backends.items() if entry.spec.peer and v != self.suite.baseline]

    def infos(self) -> list[CellInfo]:
        """The cells as `run.json` keeps them."""
        return [_info(cell, self.variants[cell.key]) for cell in self.cells]

    def barred_samples(self) -> list[Sample]:
        """A record for every row that will not run: a row is never lost."""
        cells = {cell.key: cell for cell in self.cells}
        return [
            Sample(case=cells[key].case.name, cell=dict(cells[key].axes), variant=variant, block=0, status=s, reason=r)
            for (key, variant), (s, r) in self.barred.items()
        ]


def make_plan(suite: Suite, registry: Registry, selection: Selection, files: Iterable[str] = ()) -> Plan:
    """Cross the suite with what is installed; raises `UsageError` for names that nothing has.

    Backends and methods of the plugin `files` compete in every case of theirs.
    """
    suite = overridden(suite, selection)
    expression = selection.expression.strip() or suite.default
    every = [cell for cell in expand(suite) if _selected(cell, selection)]
    cells = _with_references(every, [cell for cell in every if matches(expression, cell)])
    cells = first_values(cells, selection.blocks or 1) if selection.quick else cells
    cells = _shard(cells, selection.shard)
    if not cells:
        given = [f"--{kind} {name}" for kind in ("backend", "method") for name in getattr(selection, f"{kind}s")]
        given += [f"-k {expression!r}"] if expression else []
        what = " with ".join(given) or "the shard"
        told = why_none(expression, every) or f"; cases: {', '.join(c.name for c in suite.cases)}"
        raise UsageError(f"{suite.name}: {what} selects no cell{told}")
    plan = Plan(suite, [], {}, {}, {}, named=(*selection.backends, *selection.methods))
    for cell in cells:
        kind = "methods" if cell.case.by_method else "backends"
        table = plan.methods if cell.case.by_method else plan.backends
        asked = selection.methods if cell.case.by_method else selection.backends
        written = cell.case.methods if cell.case.by_method else cell.case.backends
        names = list(dict.fromkeys([cell.baseline, *(asked or written), *_local(registry, kind, files)]))
        for name in names:
            if name not in table:
                table[name] = _found(registry, kind, name, cell, asked)
        if cell.case.by_method:  # what never prunes runs once, not at every sparsity
            names = [name for name in names if table[name][0].spec.prunes != cell.is_reference]
            if not names and not asked and "speedup" in cell.axes:
                raise UsageError(f"case {cell.case.name!r}: none of its methods prunes, so none comes to a speedup")
        if names:
            plan.cells.append(cell)
            plan.variants[cell.key] = names
            plan.parts[cell.key] = parts_of(registry, cell)
            _bar_missing(plan, cell, table)
    return plan


def _with_references(every: list[Cell], chosen: list[Cell]) -> list[Cell]:
    """The chosen cells, and for those in which methods compete what they are compared with, in the order of all."""
    wanted = {cell.key for cell in chosen} | {_sibling(cell) for cell in chosen if cell.case.by_method}
    return [cell for cell in every if cell.key in wanted or (cell.is_reference and _sibling(cell) in wanted)]


def _sibling(cell: Cell) -> str:
    """What a cell shares with its reference: the case and every axis but the sparsity."""
    return repr((cell.case.name, sorted((k, v) for k, v in cell.axes.items() if k not in TARGETS)))


def _selected(cell: Cell, selection: Selection) -> bool:
    """Who names backends alone wants no rows of methods, and the other way round."""
    return bool(selection.methods if cell.case.by_method else selection.backends) or not (
        selection.methods or selection.backends
    )


def _local(registry: Registry, kind: str, files: Iterable[str]) -> list[str]:
    """Names of what the plugin files offer."""
    entries: Mapping[str, Entry] = getattr(registry, kind)
    return [name for name, entry in entries.items() if entry.source.file and entry.source.file in set(files)]


def parts_of(registry: Registry, cell: Cell) -> dict[str, Found]:
    if cell.kind == "kernel":
        return {}
    return {
        part: _found(registry, kind, str(cell.parameters[part]), cell)
        for part, kind in PARTS.items()
        if part in cell.parameters
    }


def _bar_missing(plan: Plan, cell: Cell, table: Mapping[str, Found]) -> None:
    """Say which rows cannot run here because something is not installed."""
    needed = [plan.parts[cell.key][part] for part in ("backend",) if part in plan.parts[cell.key]]
    for variant in plan.variants[cell.key]:
        for entry, _ in (table[variant], *needed):
            missing = entry.missing()
            if missing:
                plan.bar(cell, variant, "skipped", missing)


def _found(registry: Registry, kind: str, name: str, cell: Cell, asked: tuple[str, ...] = ()) -> Found:
    """What the registry has under a name; an error says which case wants it, unless the command line does."""
    try:
        return registry.find(kind, name)
    except UsageError as error:
        where = f"--{kind[:-1]}" if name in asked else f"case {cell.case.name!r}"
        raise UsageError(f"{where}: {error}") from None


def overridden(suite: Suite, selection: Selection) -> Suite:
    cases = []
    for case in suite.cases:
        axes: Mapping[str, Any] = case.axes
        parameters = dict(case.parameters)
        if selection.threads is not None:
            axes = {**axes, "threads": (selection.threads,)}
        if selection.seed is not None:
            axes = {k: v for k, v in axes.items() if k != "seed"}
            if case.by_method:  # scores are over seeds, so their cells always name it
                axes = {**axes, "seed": (selection.seed,)}
            else:
                parameters["seed"] = selection.seed
        blocks = case.blocks if selection.blocks is None else selection.blocks
        cases.append(replace(case, axes=axes, parameters=parameters, blocks=blocks))
    return replace(suite, cases=tuple(cases))


def _shard(cells: list[Cell], shard: tuple[int, int]) -> list[Cell]:
    """Every n-th group of cells: cells that share what is bound, or a reference, stay together."""
    index, count = shard
    groups = list(dict.fromkeys(map(_together, cells)))
    mine = set(groups[index - 1 :: count])
    return [cell for cell in cells if _together(cell) in mine]


def _together(cell: Cell) -> str:
    if not cell.case.by_method:
        return cell.group
    return f"{cell.case.name}{[value for axis, value in cell.axes.items() if axis not in TARGETS]}"


def _info(cell: Cell, variants: list[str]) -> CellInfo:
    useful = dense = least = 0.0
    products = 0
    if cell.problem is not None:
        products = PRODUCTS[cell.parameters["pass"]]
        flop = 2.0 * products * cell.problem.positions
        size = cell.problem.out_features * cell.problem.columns
        nnz = round(size * (1 - cell.problem.sparsity))
        dense, useful, least = flop * size, flop * nnz, least_bytes(cell.problem, nnz)
    return CellInfo(
        case=cell.case.name,
        kind=cell.kind,
        cell=dict(cell.axes),
        version=cell.version,
        title=cell.title,
        op=cell.problem.op if cell.problem is not None else "",
        group=cell.case.group,
        blocks=cell.case.blocks,
        margin=cell.case.margin,
        tags=list(cell.case.tags),
        useful_flop=useful,
        dense_flop=dense,
        products=products,
        least_bytes=least,
        variants=variants,
        baseline=cell.baseline,
    )


def least_bytes(problem: Problem, nnz: int) -> float:
    """Bytes that one product must read or write: value and 2-byte index of each kept weight, inputs and output once.

    The same for forward and both gradients, each of which takes two of weight, input and output and makes the third.
    0 for what is not float32, whose ceilings nobody measured.
    """
    if problem.dtype != "float32":
        return 0.0
    return float(nnz * (4 + 2) + 4 * math.prod(problem.input_shape) + 4 * math.prod(problem.output_shape))
