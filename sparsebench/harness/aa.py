"""How far verdicts can be trusted on this machine: a kernel against itself, and against itself made slower.

Every experiment is an `ab` of its own, in workers of its own: what two processes differ by is common to all cells that
they compute, so cells of one experiment are not independent, and experiments are. Some are a group, cell by cell in
turn, in blocks whose workers are forked from one server: what a server draws by lot is common to both sides of a pair,
and to start one takes longer than an experiment's share of a block. Two groups run at once, each on a core of its own,
which its workers share with the parent that waits for them: a neighbour at work, and no core to stand aside on, as an
`ab` has, flatter nobody.
"""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sparsebench.harness.cells import expand
from sparsebench.harness.crew import Limits
from sparsebench.harness.duelling import DuelRunner, most_blocks
from sparsebench.harness.lanes import Lanes
from sparsebench.harness.plan import Found, Plan
from sparsebench.harness.runner import Listener, new_info
from sparsebench.harness.session import Silent
from sparsebench.harness.suite import parse_suite
from sparsebench.host import cores_apart, cpu_quota
from sparsebench.plugin import BackendSpec
from sparsebench.registry import Registry
from sparsebench.runs.duel import duels_of
from sparsebench.runs.stats import binomial_interval
from sparsebench.runs.store import RunWriter, read_run
from sparsebench.runs.verdicts import LOOKS

BACKEND, AGAIN, SLOWER = "cpp", "again", "slower"
ENDS = ("slower", "faster", "same", "inconclusive")
PERCENT = 6  # what is planted: twice the margin
PLANTED = 3  # of ten cells have a third variant, which has it
GROUP = 10  # experiments, of some 30 MiB for each of 30 workers
CORES = 2  # at most: what many of them share, caches and memory, is no part of the question
SUITE = """
schema = 1
[suite]
name = "doctor-aa"
threads = [1]
{cases}
"""
# Kernels of half a millisecond to one, each bound by something else; the last streams its weight from memory.
CASES = {
    "square": 'op = "linear"\nout_features = 1024\nin_features = 1024\nbatch = 64\nsparsity = 0.9\npass = "forward"',
    "both": 'op = "linear"\nout_features = 768\nin_features = 768\nbatch = 64\nsparsity = 0.95\npass = "both"',
    "conv": 'op = "conv2d"\nout_features = 64\nin_features = 64\nkernel_size = 3\npadding = 1\nheight = 32\n'
    'width = 32\nbatch = 2\nsparsity = 0.9\npass = "forward"',
    "gradient": 'op = "conv2d"\nout_features = 128\nin_features = 128\nkernel_size = 3\npadding = 1\nheight = 8\n'
    'width = 8\nbatch = 4\nsparsity = 0.9\npass = "backward"',
    "narrow": 'op = "linear"\nout_features = 512\nin_features = 2048\nbatch = 64\nsparsity = 0.9\npass = "grad_input"',
    "pointwise": 'op = "conv2d"\nout_features = 256\nin_features = 256\nkernel_size = 1\nheight = 14\nwidth = 14\n'
    'batch = 4\nsparsity = 0.9\npass = "forward"',
    "sparser": 'op = "linear"\nout_features = 1024\nin_features = 1024\nbatch = 64\nsparsity = 0.98\npass = "both"',
    "stream": 'op = "linear"\nout_features = 1536\nin_features = 1536\nbatch = 4\nsparsity = 0.8\npass = "forward"',
}
TURNS = [*CASES][:-1] * 2 + [*CASES][-1:]  # its samples take four times as long
CELLS = 5  # of an experiment


@dataclass
class Trust:
    """What came out so far: verdicts of equal pairs, and of pairs of which one was slowed."""

    equal: Counter[str] = field(default_factory=Counter)
    slowed: Counter[str] = field(default_factory=Counter)
    blocks: int = 0

    @property
    def attempts(self) -> int:
        """At comparing a kernel with itself."""
        return sum(self.equal.values())

    @property
    def comparisons(self) -> int:
        """Of those, the ones that came to their end."""
        return sum(self.equal[verdict] for verdict in ENDS)

    @property
    def failed(self) -> int:
        """Pairs that were not compared, because one of the two failed or came out wrong."""
        return self.attempts - self.comparisons + sum(self.slowed.values()) - self.trials

    @property
    def trials(self) -> int:
        """Pairs of which one was slowed that came to their end."""
        return sum(self.slowed[verdict] for verdict in ENDS)

    @property
    def false_alarms(self) -> int:
        """Equal pairs that were called slower or faster."""
        return self.equal["slower"] + self.equal["faster"]

    def __add__(self, other: Trust) -> Trust:
        return Trust(self.equal + other.equal, self.slowed + other.slowed, self.blocks + other.blocks)

    def facts(self) -> dict[str, object]:
        """One flat object: counts, rates, and their exact 95 % intervals."""
        trials, found = self.trials, self.slowed["slower"]
        return {
            "comparisons": self.comparisons,
            "false_alarms": self.false_alarms,
            "false_alarm_rate": self.false_alarms / max(1, self.comparisons),
            "false_alarm_interval": list(binomial_interval(self.false_alarms, max(1, self.comparisons))),
            "same": self.equal["same"],
            "inconclusive": self.equal["inconclusive"],
            "planted_percent": PERCENT,
            "trials": trials,
            "power": found / max(1, trials),
            "power_interval": list(binomial_interval(found, max(1, trials))),
            "found_slower": found,
            "called_faster": self.slowed["faster"],
            "undecided": self.slowed["inconclusive"] + self.slowed["same"],
            "failed": self.failed,
            "blocks": self.blocks,
        }


@dataclass(frozen=True)
class Experiment:
    """Kernels that are compared with themselves, and which of them also with themselves made slower."""

    number: int
    kinds: tuple[str, ...]
    planted: frozenset[str]

    @classmethod
    def of(cls, number: int, comparisons: int) -> Experiment:
        """The kernels of one of the experiments that make so many comparisons; every kind has its turn."""
        cells = range(CELLS * number, min(comparisons, CELLS * (number + 1)))
        kinds = {cell: TURNS[cell % len(TURNS)] for cell in cells}
        return cls(number, tuple(kinds.values()), frozenset(kinds[cell] for cell in cells if _is_planted(cell)))

    def cases(self) -> dict[str, str]:
        """Name of a case -> its table."""
        return {f"{kind}-{self.number}": CASES[kind] for kind in self.kinds}

    def variants(self, case: str) -> list[str]:
        """The sides of one of its cases; no other experiment has them, and so none their workers."""
        sides = (BACKEND, AGAIN, SLOWER) if case.partition("-")[0] in self.planted else (BACKEND, AGAIN)
        return [f"{side}-{self.number}" for side in sides]


def _is_planted(cell: int) -> bool:
    """Whether one of all cells has it: `PLANTED` of ten, and in time every kind as often as it has its turn."""
    return (PLANTED * cell + 8 * (cell // len(TURNS))) % 10 < PLANTED


def trials(
    comparisons: int, registry: Registry, limits: Limits | None = None, listener: Listener | None = None
) -> Iterator[Trust]:
    """Experiments until so often a kernel was compared with itself; what is known after each group of them."""
    trust, heard = Trust(), listener or Silent()
    cores = cores_apart()[: max(1, min(CORES, int(cpu_quota() or CORES)))]
    experiments = [Experiment.of(number, comparisons) for number in range(math.ceil(comparisons / CELLS))]
    size = min(GROUP, math.ceil(len(experiments) / len(cores)))
    groups = [experiments[start : start + size] for start in range(0, len(experiments), size)]
    heard.begin(comparisons * LOOKS[0], 0)
    with Lanes(cores, heard) as lanes:
        for found in lanes.run(lambda group: _measured(_plan(group, registry), registry, limits, lanes), groups):
            trust += found
            yield trust


def _measured(plan: Plan, registry: Registry, limits: Limits | None, listener: Listener) -> Trust:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "run"
        with RunWriter.create(folder, new_info(plan, registry, {})) as writer:
            DuelRunner(plan, writer, listener, limits).run()
        run = read_run(folder)
    trust = Trust(blocks=1 + max((sample.block for sample in run.samples), default=-1))
    for duel in duels_of(run):
        (trust.equal if duel.b.startswith(AGAIN) else trust.slowed)[duel.verdict] += 1
    return trust


def _plan(experiments: Sequence[Experiment], registry: Registry) -> Plan:
    """The cells of some experiments: the backend against itself, and in some against itself made slower."""
    owner = {case: each for each in experiments for case in each.cases()}
    tables = "\n".join(f'[[kernel]]\nname = "{case}"\n{each.cases()[case]}' for case, each in owner.items())
    suite = parse_suite(SUITE.format(cases=tables), "doctor --aa")
    variants = {cell.key: owner[cell.case.name].variants(cell.case.name) for cell in expand(suite)}
    cells = [
        replace(cell, baseline=variants[cell.key][0], case=replace(cell.case, blocks=most_blocks()))
        for cell in expand(suite)
    ]
    entry, options = registry.find("backends", BACKEND)
    spec = BackendSpec(
        name=SLOWER, summary=f"{BACKEND}, {PERCENT} % slower", load="sparsebench.harness.slowed:Slowed",
        ops=entry.spec.ops, options={"percent": (PERCENT,), "inner": (entry.spec.load,)},
    )  # fmt: skip
    slower: Found = replace(entry, spec=spec), {"percent": PERCENT, "inner": entry.spec.load}
    names = {name for sides in variants.values() for name in sides}
    backends = {name: slower if name.startswith(SLOWER) else (entry, options) for name in names}
    return Plan(suite, cells, variants, backends, {cell.key: {} for cell in cells})
