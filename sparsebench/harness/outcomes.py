"""What a race for the fastest backend of one problem found: who came how far, who is fastest, and keeping it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sparsebench import plans
from sparsebench.harness.targets import MARGIN
from sparsebench.host import libraries
from sparsebench.problem import Problem
from sparsebench.runs.records import TIMED, Status


@dataclass(frozen=True)
class Candidate:
    """One backend with one plan (None: it proposed none) and what became of it; `time_ns` of one repetition.

    `raced` says that it was verified in full and timed in turn with the others; else `time_ns` is from a glance.
    """

    backend: str  # as it was named, with the options that were fixed
    plan: Mapping[str, str | int] | None = None
    own: bool = False  # what the backend would choose itself
    status: Status = "ok"
    reason: str = ""
    time_ns: float | None = None
    ratio: float | None = None  # dense time over this one's: above 1 is faster
    raced: bool = False
    rival: bool = True  # whether it may win: dense layers, and other classes of precision, are shown beside

    @property
    def variant(self) -> str:
        """The name that runs it."""
        return plans.variant(self.backend, self.plan)

    @property
    def ran(self) -> bool:
        """Whether it was right and timed in the race."""
        return self.raced and self.status in TIMED and self.ratio is not None

    @property
    def speed(self) -> float:
        """`ratio`, or 0 without one. It is paired within rounds, so steadier than times."""
        return self.ratio or 0.0


@dataclass(frozen=True)
class Outcome:
    """What was found for one problem; `codes` of all backends that were tried, the dense one too."""

    layers: tuple[str, ...]
    problem: Problem
    passes: str
    dense: Candidate
    candidates: tuple[Candidate, ...]
    codes: Mapping[str, plans.Code] = field(default_factory=dict)

    @property
    def noisy(self) -> bool:
        """Whether something else had the core in too many rounds for the times to be trusted."""
        return any(each.status == "contaminated" for each in (self.dense, *self.candidates))

    def best(self, backend: str) -> Candidate | None:
        """The backend's fastest plan: its own choice, unless another is faster by more than the noise."""
        mine = [c for c in self.candidates if c.backend == backend and c.ran]
        if not mine:
            return None
        fastest = max(mine, key=_speed)
        own = next((c for c in mine if c.own), fastest)
        return fastest if fastest.speed > (1 + MARGIN) * own.speed else own

    def gain(self, backend: str) -> float:
        """Speed of the backend's best plan over its own choice; 1 if that is the best, or was not right."""
        best = self.best(backend)
        own = next((c for c in self.candidates if c.backend == backend and c.own and c.ran), best)
        return 1.0 if best is None or own is None else best.speed / own.speed

    def fastest(self) -> Candidate | None:
        """The winner; None where the dense layer stays."""
        found = [best for name in self.backends if (best := self.best(name)) is not None and best.rival]
        winner = max(found, key=_speed, default=None)
        return winner if winner is not None and winner.speed > 1 + MARGIN else None

    @property
    def backends(self) -> tuple[str, ...]:
        """Everybody but the dense layer, in the order in which they were named."""
        return tuple(dict.fromkeys(c.backend for c in self.candidates))


def _speed(candidate: Candidate) -> float:
    return candidate.speed


def keep(outcome: Outcome, made: str) -> None:
    """Store what was found for one problem: the plans of all that have any, and who is fastest.

    Raises `PlansError` where plans cannot be kept.
    """
    tuned = {}
    for name in outcome.backends:
        best = outcome.best(name)
        if best is not None and best.plan is not None:
            tuned[name] = plans.Tuned(
                options=dict(best.plan),
                gain=outcome.gain(name),
                passes=outcome.passes,
                code=outcome.codes[name],
                made=made,
            )
    plans.store(outcome.problem, outcome.passes, tuned, _fastest(outcome, made))


def _fastest(outcome: Outcome, made: str) -> plans.Fastest | None:
    """None where nobody could be raced against the dense layer, so that nothing is known."""
    dense_ns = outcome.dense.time_ns
    if dense_ns is None:
        return None
    times = {name: dense_ns / best.speed for name in outcome.backends if (best := outcome.best(name)) is not None}
    winner = outcome.fastest()
    return plans.Fastest(
        backend="" if winner is None else winner.backend,
        winner="" if winner is None else winner.variant,
        times_ns={"dense": dense_ns, **times},
        codes=dict(outcome.codes),
        torch=libraries().get("torch", ""),
        made=made,
    )
