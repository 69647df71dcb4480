"""How far verdicts can be trusted on this machine: a kernel against itself, and against itself made slower.

Every experiment is an `ab` of its own, in fresh blocks: what two processes differ by is common to all cells of a block,
so cells of one experiment are not independent, and experiments are.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from sparsebench.harness.cells import expand
from sparsebench.harness.crew import Limits
from sparsebench.harness.duelling import DuelRunner, most_blocks
from sparsebench.harness.plan import Plan
from sparsebench.harness.runner import new_info
from sparsebench.harness.session import Silent
from sparsebench.harness.suite import parse_suite
from sparsebench.plugin import BackendSpec
from sparsebench.registry import Entry, Registry
from sparsebench.runs.duel import duels_of
from sparsebench.runs.stats import binomial_interval
from sparsebench.runs.store import RunWriter, read_run

BACKEND, AGAIN, SLOWER = "cpp", "again", "slower"
ENDS = ("slower", "faster", "same", "inconclusive")
PERCENT = 6  # what is planted: twice the margin
PLANTED = 2  # cells of an experiment that have it, in turn
SUITE = """
schema = 1
[suite]
name = "doctor-aa"
threads = [1]
{cases}
"""
# Kernels of half a millisecond to a few, each bound by something else; the last streams its weight from memory.
CASES = {
    "square": 'op = "linear"\nout_features = 1024\nin_features = 1024\nbatch = 64\nsparsity = 0.9\npass = "forward"',
    "both": 'op = "linear"\nout_features = 768\nin_features = 768\nbatch = 64\nsparsity = 0.95\npass = "both"',
    "conv": 'op = "conv2d"\nout_features = 64\nin_features = 64\nkernel_size = 3\npadding = 1\nheight = 32\n'
    'width = 32\nbatch = 2\nsparsity = 0.9\npass = "forward"',
    "gradient": 'op = "conv2d"\nout_features = 128\nin_features = 128\nkernel_size = 3\npadding = 1\nheight = 8\n'
    'width = 8\nbatch = 4\nsparsity = 0.9\npass = "backward"',
    "stream": 'op = "linear"\nout_features = 1536\nin_features = 1536\nbatch = 4\nsparsity = 0.8\npass = "forward"',
}


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


def trials(comparisons: int, registry: Registry, limits: Limits | None = None) -> Iterator[Trust]:
    """Experiments until so often a kernel was to be compared with itself; what is known after each."""
    trust, number = Trust(), 0
    while trust.attempts < comparisons:
        names = list(CASES)[: comparisons - trust.attempts]
        planted = [list(CASES)[(PLANTED * number + i) % len(CASES)] for i in range(PLANTED)]
        with tempfile.TemporaryDirectory() as folder:
            _experiment(_plan(names, planted, registry), registry, Path(folder) / "run", trust, limits)
        number += 1
        yield trust


def _experiment(plan: Plan, registry: Registry, folder: Path, trust: Trust, limits: Limits | None) -> None:
    with RunWriter.create(folder, new_info(plan, registry, {})) as writer:
        DuelRunner(plan, writer, Silent(), limits).run()
    run = read_run(folder)
    for duel in duels_of(run):
        (trust.equal if duel.b == AGAIN else trust.slowed)[duel.verdict] += 1
    trust.blocks += 1 + max((sample.block for sample in run.samples), default=-1)


def _plan(names: list[str], planted: list[str], registry: Registry) -> Plan:
    """Cells of pairs: the backend and itself, and for `planted` ones the backend and itself made slower."""
    chosen = {f"{name}-{AGAIN}": CASES[name] for name in names} | {f"{n}-{SLOWER}": CASES[n] for n in planted}
    tables = "\n".join(f'[[kernel]]\nname = "{name}"\n{text}' for name, text in chosen.items())
    suite = parse_suite(SUITE.format(cases=tables), "doctor --aa")
    cells = [replace(cell, baseline=BACKEND, case=replace(cell.case, blocks=most_blocks())) for cell in expand(suite)]
    entry, options = registry.find("backends", BACKEND)
    spec = BackendSpec(
        name=SLOWER, summary=f"{BACKEND}, {PERCENT} % slower", load="sparsebench.harness.slowed:Slowed",
        ops=entry.spec.ops, options={"percent": (PERCENT,), "inner": (BACKEND,)},
    )  # fmt: skip
    slower: Entry = replace(entry, spec=spec)
    return Plan(
        suite,
        cells,
        {cell.key: [BACKEND, cell.case.name.rpartition("-")[2]] for cell in cells},
        {
            BACKEND: (entry, options),
            AGAIN: (entry, options),
            SLOWER: (slower, {"percent": PERCENT, "inner": BACKEND}),
        },
        {cell.key: {} for cell in cells},
    )
