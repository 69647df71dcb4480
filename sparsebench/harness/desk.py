"""A worker's desk: it takes the parent's requests one by one, and whatever a plugin does becomes an answer."""

from __future__ import annotations

import gc
import re
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from sparsebench import plans
from sparsebench.errors import (
    DatasetMissing,
    InvariantError,
    PluginError,
    SparsebenchError,
    UnsupportedError,
    UsageError,
)
from sparsebench.harness.cases.base import Job, Order, case_kind
from sparsebench.harness.cells import problem_of
from sparsebench.harness.vitals import canary_ns, reset_peak, resident_peak
from sparsebench.registry import Entry, entry_from_wire
from sparsebench.state import GlobalState
from sparsebench.timing import lap, warm, without_gc
from sparsebench.verify import Finding

_NOTHING = Finding(True, "nothing", None, 0.0, 0.0)
FIRST_CALL, FIRST_CALL_NS = 3.0, 2e8  # how much more patience a first call meets, and how much there is always
Answer = dict[str, Any]
_NO_MEMORY = re.compile(r"can't allocate memory|not enough memory|Cannot allocate memory|bad_alloc|Unable to allocate")


class Wrong(SparsebenchError):
    """A plugin's result is not what the oracle says."""


class Desk:
    """What one worker holds between requests."""

    def __init__(self) -> None:
        self.state = GlobalState.capture()
        self.entries: dict[str, Entry] = {}
        self.backend: Any = None
        self.job: Job | None = None
        self.group = ""
        self.finding = _NOTHING
        self.base = 0  # peak memory when the cell began
        self.peak = 0  # and after its first repetitions, where places that come later would count
        self.first_canary = 0.0

    def answer(self, request: Mapping[str, Any]) -> Answer:
        """The answer to one request; a failure is `{"failed": status, "reason": sentence}`."""
        try:
            made: Answer = getattr(self, f"_{request['do']}")(request)
            changes = None if request["do"] == "lap" else self.state.changes()  # the last answer tells of all laps
            return {"failed": "wrong", "reason": changes} if changes else made
        except BaseException as error:
            traceback.print_exc()
            return {"failed": _status(error), "reason": _sentence(error)}

    def _load(self, request: Mapping[str, Any]) -> Answer:
        """Import the backend and make it."""
        self.entries = {"backend": entry_from_wire(request["backend"])}
        self.backend = self.entries["backend"].load()(**request["options"])
        return {}

    def _probe(self, request: Mapping[str, Any]) -> Answer:
        """Whether each of some orders can be done: status `ok`, or another with its reason."""
        return {"answers": [self._possible(order) for order in map(self._order, request["orders"])]}

    def _possible(self, order: Order) -> Answer:
        try:
            reason = case_kind(order.kind).unsupported(order, self.backend)
            changes = self.state.changes()
            if changes:
                return {"status": "wrong", "reason": changes}
            return {"status": "ok"} if reason is None else {"status": "unsupported", "reason": reason}
        except BaseException as error:
            traceback.print_exc()
            usage = isinstance(error, UsageError)  # the case asks for what cannot be, whoever computes it
            return {"status": "usage" if usage else _status(error), "reason": _sentence(error)}
        finally:
            self.state.restore()

    def _oracle(self, request: Mapping[str, Any]) -> Answer:
        """Write what is right to the order's file, whole or not at all."""
        order = self._order(request["order"])
        part = order.oracle.with_suffix(".part")
        case_kind(order.kind).write_oracle(order, part)
        part.rename(order.oracle)
        return {}

    def _prepare(self, request: Mapping[str, Any]) -> Answer:
        """Bind, verify, and say how long one repetition takes."""
        order = self._order(request["order"])
        self.first_canary, before = canary_ns(), self._checked_ns()
        if self.job is None or self.group != order.group:
            self.job, self.group, before = None, "", 0
            gc.collect()  # what the last cell left must not be collected in the midst of this one
            self.base = reset_peak()
            self.job = case_kind(order.kind).make(order, self.backend)
            self.finding = self.job.verify(brief=request.get("brief", False))
            _must(self.finding, "")
            self.group = order.group
        reset_peak()  # what verification took is not the variant's
        self.job.prepare(order.parameters)
        start = time.perf_counter_ns()
        each = None if request["once"] else self._each_ns(self.job.run)
        timed, peak = time.perf_counter_ns() - start, resident_peak()
        self.peak = peak if self.job.spread() else 0
        return {
            "each_ns": each,
            "checked_ns": self._checked_ns() - before,
            "timed_ns": timed,
            "note": self.job.note,
            "verify": {"max_rel_err": self.finding.max_rel_err, "tolerance": self.finding.tolerance},
        }

    def _checked_ns(self) -> int:
        """Nanoseconds in which the job's kernel was bound or verified; a job that does not count them says nothing."""
        return int(getattr(self.job, "checked_ns", 0))

    @staticmethod
    def _each_ns(run: Callable[[], object]) -> float:
        first = warm(run, 0)
        return first if first > 1e8 else min(warm(run), warm(run))

    def _lap(self, request: Mapping[str, Any]) -> Answer:
        """One sample: untimed repetitions, then timed ones, then a look at the last result."""
        assert self.job is not None
        start = time.perf_counter_ns()
        with without_gc():
            if request["warm_ns"]:
                warm(self.job.run, request["warm_ns"])
            made = lap(self.job.run, request["loops"])
        spent = time.perf_counter_ns() - start
        _must(self.job.inspect(), "after a timed repetition: ")
        splits, metrics = self.job.scores()
        return {"wall_ns": made.wall_ns, "cpu_ns": made.cpu_ns, "switches": made.switches,
                "splits_ns": splits, "metrics": metrics, "timed_ns": spent}  # fmt: skip

    def _finish(self, request: Mapping[str, Any]) -> Answer:
        """Verify once more after the last sample."""
        assert self.job is not None
        peak, before = (self.peak or resident_peak()) - self.base, self._checked_ns()
        _must(self.job.recheck(), "after the last sample: ")
        return {
            "rss_peak": max(0, peak),
            "canary": [self.first_canary, canary_ns()],
            "note": self.job.note,
            "checked_ns": self._checked_ns() - before,
        }

    def _plans(self, request: Mapping[str, Any]) -> Answer:
        """The plans that the backend thinks worth measuring for an order; the hash of its code; whether it is dense."""
        order = self._order(request["order"])
        self._must_be_able(order)
        ask = getattr(self.backend, "plans", None)
        made = ask(problem_of(order.parameters)) if callable(ask) else ()
        if not isinstance(made, list | tuple):
            raise PluginError(f"plans() returned {type(made).__name__}; it must return a list of plans")
        code = plans.code_of(self.entries["backend"].spec.load.partition(":")[0])
        dense = bool(getattr(self.backend, "dense", False))
        return {"plans": [_options(plan) for plan in made], "code": msgspec.to_builtins(code), "dense": dense}

    def _glance(self, request: Mapping[str, Any]) -> Answer:
        """Bind, and see how long one repetition takes; what takes longer than `patience_ns` is not looked at."""
        order = self._order(request["order"])
        self._must_be_able(order)
        self.job, self.group = None, ""
        gc.collect()
        self.job = case_kind(order.kind).make(order, self.backend)
        self.job.prepare(order.parameters)
        each = warm(self.job.run, 0)  # the first call builds what is needed, so it may be far slower than the next
        if each < max(FIRST_CALL * request["patience_ns"], FIRST_CALL_NS):
            each = self._each_ns(self.job.run)
            _must(self.job.inspect(), "")
        return {"each_ns": each, "note": self.job.note}

    def _must_be_able(self, order: Order) -> None:
        reason = case_kind(order.kind).unsupported(order, self.backend)
        if reason is not None:
            raise UnsupportedError(reason)

    def _layers(self, request: Mapping[str, Any]) -> Answer:
        """The problems of a model's layers on an input of some shape: what `sparsebench tune` works through."""
        from sparsebench.harness.layers import layers_of

        entry = entry_from_wire(request["model"])
        return {"layers": layers_of(entry, request["input"], request["classes"], **request["problem"])}

    def _checks(self, request: Mapping[str, Any]) -> Answer:
        """Names of the checks that the backend has to pass."""
        from sparsebench.testing import checks_for

        return {"names": [check.name for check in checks_for(self.entries["backend"].spec)]}

    def _check(self, request: Mapping[str, Any]) -> Answer:
        """One check of the conformance grid, by its place in the list."""
        from sparsebench.testing import checks_for, run_check

        spec = self.entries["backend"].spec
        result = run_check(self.backend, spec, checks_for(spec)[request["index"]])
        return {"status": result.status, "reason": result.reason}

    def _method_checks(self, request: Mapping[str, Any]) -> Answer:
        """Names of the checks that every method has to pass."""
        from sparsebench.testing import method_checks

        return {"names": [check.name for check in method_checks()]}

    def _method_check(self, request: Mapping[str, Any]) -> Answer:
        """One check of a method, by its place in the list."""
        from sparsebench.testing import method_checks, run_method_check

        entry = entry_from_wire(request["method"])
        spec = replace(entry.spec, parameters=request["options"])
        result = run_method_check(entry.load(), spec, method_checks()[request["index"]])
        return {"status": result.status, "reason": result.reason}

    def _order(self, data: Mapping[str, Any]) -> Order:
        entries = {name: entry_from_wire(each) for name, each in data["entries"].items()}
        return Order(
            data["kind"], data["parameters"], self.entries | entries, Path(data["oracle"]), data["group"],
            data.get("options", {}), Path(data.get("state", "")), str(data.get("models", "")),
        )  # fmt: skip


def _options(plan: object) -> dict[str, str | int]:
    """A plan as plain data."""
    try:
        return msgspec.convert(dict(plan), dict[str, str | int])  # type: ignore[call-overload]
    except (TypeError, ValueError, msgspec.ValidationError) as error:
        raise PluginError(f"plans() gave {plan!r}; a plan maps names of options to text or whole numbers") from error


def _must(finding: Finding, when: str) -> None:
    if not finding.ok:
        raise Wrong(f"{when}{finding.reason}")


def _status(error: BaseException) -> str:
    if isinstance(error, Wrong | InvariantError):
        return "wrong"
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error))):
        return "oom"
    if isinstance(error, DatasetMissing):
        return "skipped"
    return "unsupported" if isinstance(error, UnsupportedError) else "error"


def _sentence(error: BaseException) -> str:
    text = " ".join(str(error).split())[:400]
    if isinstance(error, SparsebenchError):
        return text
    where = _place(error)
    return f"{type(error).__name__}: {text}".rstrip(": ") + (f" (in {where})" if where else "")


def _place(error: BaseException) -> str:
    """Function and line where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].name}, {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
