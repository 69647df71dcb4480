"""What every kind of case gives a worker: a job that is verified first, then run, and looked at again in between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from sparsebench.errors import PluginError, UsageError
from sparsebench.problem import Problem
from sparsebench.registry import Entry
from sparsebench.verify import Finding


@dataclass(frozen=True)
class Order:
    """One cell for one variant, as a worker gets it: `parameters` of the case, and the plugins that take part."""

    kind: str
    parameters: Mapping[str, Any]
    entries: Mapping[str, Entry]  # "backend", and for models "model", "dataset", "method", "allocator"
    oracle: Path  # file that holds what is right
    group: str  # orders of one group share what is bound
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # of entries whose names give any
    state: Path = Path()  # where a training keeps its state, to be resumed
    models: str = ""  # the folder in which a training leaves its models; "": none

    def made(self, part: str) -> Any:
        """What the entry of a part loads, called; a method's options are no arguments, its host gives them to it."""
        options = {} if part == "method" else self.options.get(part, {})
        return self.entries[part].load()(**options)

    @property
    def precision(self) -> str:
        """Precision class that the variant is judged in."""
        return str(self.entries["backend"].spec.precision)


class Job(Protocol):
    """One cell of one variant, ready to be verified and run."""

    note: str  # shown beside the row

    def verify(self, brief: bool = False) -> Finding:
        """Compare everything that will be timed, and what it depends on, with the oracle.

        `brief`: another process has done so before, in this run and for this very cell.
        """

    def prepare(self, parameters: Mapping[str, Any]) -> None:
        """Make `run` ready for these parameters (a job serves all passes of its group)."""

    def run(self) -> object:
        """One repetition: what the clock sees."""

    def spread(self) -> bool:
        """Have further places in memory for samples to use in turn; whether that took memory beyond the variant's."""

    def inspect(self) -> Finding:
        """Whether the last repetition's result is right; called outside the clock."""

    def recheck(self) -> Finding:
        """Verify once more after the last sample."""

    def scores(self) -> tuple[dict[str, float], dict[str, float]]:
        """(nanoseconds of the parts of a repetition, other metrics)."""


class CaseKind(Protocol):
    """What a module of this package offers."""

    def unsupported(self, order: Order, backend: Any) -> str | None:
        """Why this variant cannot do the cell, or None."""

    def write_oracle(self, order: Order, path: Path) -> None:
        """Compute what is right, in float64, and write it to a file."""

    def make(self, order: Order, backend: Any) -> Job:
        """Bind: everything up to the first call of a kernel."""


def ask(backend: Any, problem: Problem) -> str | None:
    """What a backend says it cannot do; an error of the kind that means a wrong case is the plugin's here."""
    try:
        reason: str | None = backend.unsupported(problem)
    except UsageError as error:
        raise PluginError(f"unsupported() raised {type(error).__name__}: {error}") from error
    return reason


def case_kind(name: str) -> CaseKind:
    """The module of a kind of case."""
    module: Any = import_module(f"sparsebench.harness.cases.{name.replace('-', '_')}")
    return module
