"""The race that `sparsebench tune` holds for each problem: every backend with every plan it thinks worth measuring.

Each candidate runs in a worker of its own, so one that is wrong, crashes or hangs costs only itself. First a glance:
bind, see how long a repetition takes, compare its result with the oracle. Who is far behind stays there. The others
are verified as in a run, and timed in turn beside the dense layer.
"""

from __future__ import annotations

import statistics
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from sparsebench import plans
from sparsebench.errors import UsageError
from sparsebench.harness import block
from sparsebench.harness.cells import Cell
from sparsebench.harness.crew import Crew, Limits
from sparsebench.harness.outcomes import Candidate, Outcome
from sparsebench.harness.plan import Plan
from sparsebench.harness.runner import PATIENCE
from sparsebench.harness.server import NOBODY, Failure, ServerLost
from sparsebench.harness.suite import BASELINE, Suite
from sparsebench.harness.targets import Target
from sparsebench.registry import Registry
from sparsebench.runs.records import TIMED, Sample

HOPELESS = 2.0  # a backend whose best glance is so many times slower than dense is not raced,
HOPELESS_BUT_NAMED = 50.0  # nor one that was asked for by name and is that slow
NEAR = 1.3  # plans within this factor of their backend's best glance are raced,
FINALISTS = 4  # but no more of them, and the backend's own choice
ATTEMPTS = 2  # at a race in quiet
MOST_PLANS = 48  # that one backend may propose for one problem
PLANS_OFF = {plans.VARIABLE: ""}  # what was tuned before must not decide what is measured now
Tell = Callable[[str, int, int], None]  # what is measured, how many problems are done, how many there are


def tune(
    target: Target,
    registry: Registry,
    backends: Sequence[str],
    limits: Limits,
    tell: Tell,
    named: Collection[str] = (),
) -> Iterator[Outcome]:
    """What is fastest for each problem of the target, one by one as it is found.

    `backends` may have fixed options. Those that are `named` are raced even where they are slow.
    """
    found = {name: registry.find("backends", name) for name in dict.fromkeys([BASELINE, *backends])}
    done = 0
    for threads in sorted({cell.threads for cell in target.cells}):
        cells = [cell for cell in target.cells if cell.threads == threads]
        plan = Plan(Suite("tune", "", BASELINE, (), ""), cells, {}, dict(found), {cell.key: {} for cell in cells})
        settings = {"block": 0, "threads": threads, "limits": limits, "settings": PLANS_OFF}
        with tempfile.TemporaryDirectory() as folder, Crew(plan, Path(folder), **settings) as crew:  # type: ignore[arg-type]
            patience = {each: HOPELESS_BUT_NAMED if each in named else HOPELESS for each in found if each != BASELINE}
            race = _Race(crew, registry, patience)
            for cell in cells:
                say = partial(_say, tell, done, len(target.cells), cell.case.name)
                yield race.run(cell, target.layers[cell.case.name], say)
                done += 1


def _say(tell: Tell, done: int, total: int, name: str, what: str) -> None:
    tell(f"{name}: {what}", done, total)


class _Race:
    """The races of one crew; `patience` says of each backend how many times slower than dense it may be."""

    def __init__(self, crew: Crew, registry: Registry, patience: Mapping[str, float]) -> None:
        self.crew, self.registry, self.patience = crew, registry, patience
        self.hangs: Counter[str] = Counter()
        self.codes: dict[str, plans.Code] = {}

    def run(self, cell: Cell, layers: tuple[str, ...], tell: Callable[[str], None]) -> Outcome:
        """The race for one problem."""
        assert cell.problem is not None
        self.codes = {}
        dense = self._dense(cell, tell)
        seen: list[Candidate] = []
        for backend in self.patience if dense.time_ns is not None else ():
            for candidate in self._proposals(cell, backend):
                tell(candidate.variant)
                seen.append(self._glance(cell, candidate, dense.time_ns))
        chosen = finalists(seen, {name: times * (dense.time_ns or 0.0) for name, times in self.patience.items()})
        for candidate in seen:
            if candidate.variant not in chosen:
                self.crew.dismiss(candidate.variant)
        if chosen:
            tell(f"racing {len(chosen)} against {BASELINE}")
            dense, seen = self._race(cell, dense, seen, chosen)
        self.crew.oracle(cell).unlink(missing_ok=True)
        return Outcome(layers, cell.problem, cell.parameters["pass"], dense, tuple(seen), self.codes)

    def _dense(self, cell: Cell, tell: Callable[[str], None]) -> Candidate:
        """A glance at what the others must beat."""
        tell("the oracle")
        try:
            self.crew.ensure_oracle(cell)
        except Failure as failure:
            return Candidate(BASELINE, status=failure.status, reason=f"{block.NO_ORACLE}: {failure.reason}")
        tell(BASELINE)
        dense = self._proposals(cell, BASELINE)[0]
        return self._glance(cell, dense, None)

    def _proposals(self, cell: Cell, backend: str) -> list[Candidate]:
        """The backend with each of its plans, its own choice first; or the record of why it is not in the race."""
        entry = self.crew.plan.backends[backend][0]
        missing = entry.missing()
        if missing:
            return [Candidate(backend, status="skipped", reason=missing)]
        self.codes[backend] = plans.code_of(entry.spec.load.partition(":")[0])
        try:
            answer = self._ask(backend, backend, {"do": "plans", "order": self.crew.order(cell, backend)})
        except Failure as failure:
            return [Candidate(backend, status=failure.status, reason=failure.reason)]
        self.codes[backend] = msgspec.convert(answer["code"], plans.Code)
        rival = entry.spec.precision == "float32" and not answer["dense"]
        fixed = self.crew.plan.backends[backend][1]
        fitting = [
            p for p in answer["plans"] if all(str(p.get(key, value)) == str(value) for key, value in fixed.items())
        ]
        offered = [dict(pairs) for pairs in dict.fromkeys(tuple(sorted(plan.items())) for plan in fitting)]
        if not offered:
            return [Candidate(backend, own=True, rival=rival)]
        self.crew.dismiss(backend)  # it has said what it has to say; its plans run in workers of their own
        made = [Candidate(backend, plan, own=i == 0, rival=rival) for i, plan in enumerate(offered[:MOST_PLANS])]
        return [self._checked(candidate) for candidate in made]

    def _checked(self, candidate: Candidate) -> Candidate:
        """The candidate, loaded with its plan from now on, if its plan is one that a name can express."""
        try:
            self.crew.plan.backends[candidate.variant] = self.registry.find("backends", candidate.variant)
        except UsageError as error:
            return replace(candidate, status="error", reason=f"plans() gave what its options do not allow: {error}")
        return candidate

    def _glance(self, cell: Cell, candidate: Candidate, dense_ns: float | None) -> Candidate:
        if candidate.status != "ok":
            return candidate
        patience = 1e18 if dense_ns is None else self.patience[candidate.backend] * dense_ns
        request = {"do": "glance", "order": self.crew.order(cell, candidate.variant), "patience_ns": patience}
        try:
            time_ns = self._ask(candidate.backend, candidate.variant, request)["each_ns"]
        except Failure as failure:
            return replace(candidate, status=failure.status, reason=failure.reason)
        return replace(candidate, time_ns=time_ns, ratio=1.0 if dense_ns is None else dense_ns / time_ns)

    def _ask(self, backend: str, variant: str, request: dict[str, Any]) -> Any:
        if self.hangs[backend] >= PATIENCE:
            raise Failure("timeout", f"not tried: it hung {PATIENCE} times before")
        try:
            try:
                return self.crew.ask(variant, request)
            except ServerLost as lost:
                if lost.reason != NOBODY:
                    raise
                return self.crew.ask(variant, request)  # the server died before, which is nobody's fault
        except Failure as failure:
            self.hangs[backend] += failure.status == "timeout"
            raise

    def _race(
        self, cell: Cell, dense: Candidate, seen: list[Candidate], chosen: Sequence[str]
    ) -> tuple[Candidate, list[Candidate]]:
        """Verify and time in turn; again if something else had the core meanwhile."""
        for attempt in range(ATTEMPTS):
            made = block.measure(self.crew, cell, [BASELINE, *chosen], f"tune {attempt}", 0)
            samples = {sample.variant: sample for sample in made}
            if all(sample.status != "contaminated" for sample in made):
                break
        self.crew.unfit.clear()
        for name in chosen:
            self.crew.dismiss(name)
        base = samples[BASELINE]
        return _result(dense, base, base), [
            _result(each, samples[each.variant], base) if each.variant in chosen else each for each in seen
        ]


def finalists(seen: Sequence[Candidate], longest_ns: Mapping[str, float]) -> list[str]:
    """Which variants are worth a race: of each backend that takes no longer than it may its own choice and best few."""
    chosen: list[str] = []
    for backend in dict.fromkeys(c.backend for c in seen):
        well = [c for c in seen if c.backend == backend and c.status == "ok" and c.time_ns is not None]
        mine = sorted(well, key=time_of)
        if not mine or time_of(mine[0]) > longest_ns[backend]:
            continue
        near = [c for c in mine if time_of(c) <= NEAR * time_of(mine[0])][:FINALISTS]
        chosen += [c.variant for c in mine if c.own or c in near]
    return chosen


def _result(candidate: Candidate, sample: Sample, base: Sample) -> Candidate:
    """A candidate with its sample; the ratio is the median of those within one round."""
    candidate = replace(candidate, status=sample.status, reason=sample.reason or "", raced=True)
    if sample.status not in TIMED:
        return replace(candidate, time_ns=None, ratio=None)
    rounds = [i for i in range(len(sample.t_ns)) if i not in sample.dropped] or range(len(sample.t_ns))
    time_ns = statistics.median(sample.t_ns[i] for i in rounds)
    ratio = None
    if base.status in TIMED and len(base.t_ns) == len(sample.t_ns):
        ratio = statistics.median(base.t_ns[i] / sample.t_ns[i] for i in rounds)
    return replace(candidate, time_ns=time_ns, ratio=ratio)


def time_of(candidate: Candidate) -> float:
    """Nanoseconds of one that has a time."""
    assert candidate.time_ns is not None
    return candidate.time_ns
