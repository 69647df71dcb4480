"""From cases to cells: one value from each axis, the problem it stands for, and the hash of what defines it."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from sparsebench.errors import ProblemError, UsageError, nearest
from sparsebench.harness.suite import PAIRS, PROBLEM_KEYS, UNPRUNED, Case, Suite
from sparsebench.problem import PASSES, Problem
from sparsebench.runs.records import cell_key

DENSE_SPEED = 1.0  # stands in the axis of speedups for the model that is not pruned
TARGETS = ("sparsity", "speedup")  # axes by which a cell differs from its reference
VERSION = 1  # raise it when what a case of the same parameters does changes
PRODUCTS = {"forward": 1, "grad_input": 1, "grad_weight": 1, "backward": 2, "both": 3}  # products of a pass


@dataclass(frozen=True)
class Cell:
    """A case with one value taken from each of its axes."""

    case: Case
    axes: Mapping[str, Any]
    parameters: Mapping[str, Any]  # the case's, with the axes' values
    problem: Problem | None  # kernel cases only
    baseline: str

    @property
    def key(self) -> str:
        """Names the cell within a run."""
        return cell_key(self.case.name, dict(self.axes))

    @property
    def kind(self) -> str:
        """kernel, inference, training, accuracy or time-to-accuracy."""
        return self.case.kind

    @property
    def is_reference(self) -> bool:
        """Whether this is what the methods of a case are compared with: the same training without pruning."""
        p = self.parameters
        return self.case.by_method and p["sparsity"] == 0 and p.get("speedup", DENSE_SPEED) == DENSE_SPEED

    @property
    def threads(self) -> int:
        """Threads every variant computes with."""
        return int(self.parameters["threads"])

    @property
    def group(self) -> str:
        """Cells of one group share what is bound: the same problem, whatever the pass."""
        shared = {k: v for k, v in self.parameters.items() if k != "pass"}
        return f"{self.case.name}{json.dumps(shared, sort_keys=True)}"

    @property
    def version(self) -> str:
        """Hash of what defines the cell; cells of different versions are never compared."""
        what = dict(self.parameters)
        if self.problem is not None:  # with its defaults, so that a key left out is a key written down
            what = {**asdict(self.problem), "pass": what["pass"], "seed": what["seed"]}
        text = json.dumps([VERSION, self.kind, what, self.baseline], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def title(self) -> str:
        """What is computed, for people."""
        p = self.parameters
        if self.problem is not None:
            return f"{self.problem.describe()}, {p['pass']}"
        epochs = f"{p.get('epochs')} epoch{'' if p.get('epochs') == 1 else 's'}"
        what = epochs if "epochs" in p else "step" if self.kind == "training" else "forward"
        told = f"{p['model']} on {p['dataset']}, {what} at batch {p['batch']}"
        if self.case.by_method:
            ends = [f"on {p['backend']}" if "backend" in p else "", f"to {p['goal']:g}" if "goal" in p else ""]
            return ", ".join([told, p["allocator"], *filter(None, ends)])
        pruned = f"{p['method']} {p['sparsity']:g}" if "method" in p else f"checkpoint {p['checkpoint']}"
        return f"{told}, {pruned}"


def expand(suite: Suite) -> list[Cell]:
    """All cells of a suite in the order of the file; raises `UsageError` naming the case that is impossible."""
    return [cell for case in suite.cases for cell in _cells(case, suite)]


def _cells(case: Case, suite: Suite) -> Iterator[Cell]:
    choices = dict(case.axes)
    parameters = dict(case.parameters)
    if "speedup" in choices:  # what sparsity comes to it is not known yet
        choices["speedup"] = (DENSE_SPEED, *choices["speedup"])
        parameters["sparsity"] = 0.0
    elif case.by_method:
        choices["sparsity"] = tuple(dict.fromkeys((0.0, *choices["sparsity"])))
    for values in itertools.product(*choices.values()):
        axes = dict(zip(choices, values, strict=True))
        chosen = {**parameters, **axes}
        try:
            problem = problem_of(chosen) if case.kind == "kernel" else None
        except ProblemError as error:
            raise UsageError(f"{suite.where} [[{case.kind}]] {case.name!r}: {error}") from None
        yield Cell(case, axes, chosen, problem, UNPRUNED if case.by_method else suite.baseline)


def problem_of(parameters: Mapping[str, Any]) -> Problem:
    """The problem of a kernel cell; raises `ProblemError`."""
    if parameters["pass"] not in PASSES:
        raise ProblemError(f"pass = {parameters['pass']!r} is not known{nearest(parameters['pass'], PASSES)}")
    chosen: dict[str, Any] = {k: tuple(v) if k in PAIRS else v for k, v in parameters.items() if k in PROBLEM_KEYS}
    return Problem(**chosen, threads=parameters["threads"])


def first_values(cells: list[Cell], blocks: int = 1) -> list[Cell]:
    """One cell for each case, the first value of every list, with few blocks and three rounds (`--quick`)."""
    firsts = {(cell.case.name, cell.is_reference): cell for cell in reversed(cells)}
    kept = [cell for cell in cells if firsts[cell.case.name, cell.is_reference] is cell]
    return [replace(cell, case=replace(cell.case, blocks=blocks, rounds=3)) for cell in kept]
