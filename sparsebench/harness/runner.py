"""One execution of a plan: block after block, cell after cell, every row written as soon as it is known.

What was measured survives anything: samples are appended and fsynced cell by cell, and a resumed run does only what
is missing.
"""

from __future__ import annotations

import random
import secrets
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from sparsebench import host
from sparsebench.errors import RunError
from sparsebench.harness import block as one_block
from sparsebench.harness.cells import Cell
from sparsebench.harness.crew import Crew, Limits, environment
from sparsebench.harness.plan import Plan
from sparsebench.harness.spares import Spares
from sparsebench.registry import Registry
from sparsebench.runs.records import TIMED, RunInfo, Sample, cell_key
from sparsebench.runs.store import RunWriter

ROOT = Path("results")  # where run folders go unless --out says otherwise
OPTIMIZER_IMPORTS = ("torch._dynamo",)  # the first torch optimizer of a process imports it, in 1.8 s
NOT_TRIED = "not tried"  # the beginning of the reason of a row that was given up
NOT_ITS_OWN = (NOT_TRIED, one_block.NO_ORACLE)  # of a timeout that is no hang of the variant
PATIENCE = 3  # a variant that hangs this often is not asked again in this run


class Listener(Protocol):
    """Who wants to hear how a run goes on."""

    def begin(self, total: int, done: int) -> None:
        """`total` (cell, block) pairs, of which `done` are there already."""

    def cell(self, cell: Cell, block: int) -> None:
        """A cell begins."""

    def done(self, samples: Sequence[Sample]) -> None:
        """A cell of a block has been written."""


def new_info(plan: Plan, registry: Registry, options: dict[str, Any]) -> RunInfo:
    """The head of a new run."""
    threads = sorted({cell.threads for cell in plan.cells})
    fingerprint = host.fingerprint()
    return RunInfo(
        id=secrets.token_hex(4),
        argv=["sparsebench", *sys.argv[1:]],
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        suite={
            "name": plan.suite.name,
            "summary": plan.suite.summary,
            "text": plan.suite.text,
            "sha256": plan.suite.sha256,
            "details": plan.suite.details,
        },
        git=host.own_git_state(),
        host={"fingerprint": fingerprint, "volatile": host.volatile()},
        libraries=host.libraries(),
        plugins=list(registry.plugins),
        cells=plan.infos(),
        peers=plan.peer_variants(),
        precision={variant: entry.spec.precision for variant, (entry, _) in plan.backends.items()},
        environment={f"{count} threads": str(environment(count)) for count in threads},
        options=options,
        code=host.code_hash(),
    )


def new_folder(info: RunInfo) -> Path:
    """results/SUITE-TIME-ID, of an `ab` results/ab-SUITE-TIME-ID."""
    stamp = info.started.replace("-", "").replace(":", "").replace("+0000", "Z")
    kind = "ab-" if "ab" in info.options else ""
    return ROOT / f"{kind}{info.suite['name']}-{stamp}-{info.id}"


def check_resumable(old: RunInfo, new: RunInfo) -> None:
    """Refuse to mix what is not alike; raises `RunError` naming what changed."""
    fields = {
        "the suite": (old.suite.get("sha256"), new.suite["sha256"]),
        "the plugins": ([(p.name, p.sha256) for p in old.plugins], [(p.name, p.sha256) for p in new.plugins]),
        "sparsebench's own code": (old.code, new.code),
        "this machine's fingerprint": (old.host["fingerprint"], new.host["fingerprint"]),
        "the files or revisions compared": (old.options.get("code"), new.options.get("code")),
        "the selection": tuple({**info.options, "code": None} for info in (old, new)),
    }
    changed = [name for name, (before, now) in fields.items() if before != now]
    if changed:
        raise RunError(f"cannot resume run {old.id}: {' and '.join(changed)} changed since it began; start a new run")


class Runner:
    """Runs what is missing of a plan into an open run folder."""

    def __init__(self, plan: Plan, writer: RunWriter, listener: Listener, limits: Limits | None = None) -> None:
        self.plan, self.writer, self.listener, self.limits = plan, writer, listener, limits
        self.known: set[tuple[str, str, int]] = set()
        self.failed: set[tuple[str, str]] = set()
        self.hangs: Counter[str] = Counter()
        self.spent: Counter[str] = Counter()  # nanoseconds: "wall_ns", and of it what `crew.SPENT` names
        for sample in writer.run.samples:
            self._remember(sample)

    def run(self) -> None:
        """All blocks; raises `KeyboardInterrupt` as it comes, with everything written that was measured."""
        known = {(key, variant) for key, variant, _ in self.known}
        barred = self.plan.barred_samples()
        self._write([s for s in barred if (cell_key(s.case, s.cell), s.variant) not in known])
        last = max(cell.case.blocks for cell in self.plan.cells)
        self.listener.begin(*self._extent())
        start = time.perf_counter_ns()
        with Spares() as spares:
            for number in range(last):
                for threads in sorted({cell.threads for cell in self.plan.cells}):
                    cells = [c for c in self.plan.cells if c.threads == threads and self._missing(c, number)]
                    if cells:
                        self._block(number, threads, self._shuffled(cells, number), spares)
        self.spent["wall_ns"] = time.perf_counter_ns() - start
        for made in ("oracles", "trainings"):
            shutil.rmtree(self.writer.folder / made, ignore_errors=True)

    def _extent(self) -> tuple[int, int]:
        """How many (cell, block) pairs there are, and how many of them are there already."""
        todo = [(cell, number) for cell in self.plan.cells for number in range(cell.case.blocks)]
        return len(todo), sum(not self._missing(cell, number) for cell, number in todo)

    def _block(self, number: int, threads: int, cells: list[Cell], spares: Spares) -> None:
        preload = OPTIMIZER_IMPORTS if any(cell.kind not in ("kernel", "inference") for cell in cells) else ()
        with Crew(self.plan, self.writer.folder, number, threads, self.limits, preload, spares=spares) as crew:
            for cell in cells:
                self.listener.cell(cell, number)
                variants = self._missing(cell, number)
                tired = [v for v in variants if self.hangs[v] >= PATIENCE]
                samples = [self._given_up(cell, v, number) for v in tired]
                alive = [v for v in variants if v not in tired]
                if alive:
                    times = self._times(cell)
                    samples += one_block.measure(crew, cell, alive, self.writer.info.id, self.writer.session, times)
                self._write(samples)
                self.listener.done(samples)
            self.spent.update(crew.spent)

    def _times(self, cell: Cell) -> int:
        """How many times the rounds of its case a cell is measured in the next block."""
        return 1

    def _missing(self, cell: Cell, number: int) -> list[str]:
        """Variants that this cell still needs in this block. A row that failed once is not tried again."""
        if number >= cell.case.blocks:
            return []
        return [
            variant
            for variant in self.plan.running(cell)
            if (cell.key, variant) not in self.failed and (cell.key, variant, number) not in self.known
        ]

    def _shuffled(self, cells: list[Cell], number: int) -> list[Cell]:
        """Groups in random order, drawn from the run and the block; cells that share what is bound stay together."""
        groups: dict[str, list[Cell]] = {}
        for cell in cells:
            groups.setdefault(cell.group, []).append(cell)
        names = list(groups)
        random.Random(f"{self.writer.info.id}/{number}").shuffle(names)
        return [cell for name in names for cell in groups[name]]

    def _given_up(self, cell: Cell, variant: str, number: int) -> Sample:
        reason = f"{NOT_TRIED}: it hung in {PATIENCE} cells before"
        return Sample(
            case=cell.case.name, cell=dict(cell.axes), variant=variant, block=number, status="timeout", reason=reason
        )

    def _write(self, samples: Sequence[Sample]) -> None:
        self.writer.append(samples)
        for sample in samples:
            self._remember(sample)

    def _remember(self, sample: Sample) -> None:
        key = cell_key(sample.case, sample.cell)
        self.known.add((key, sample.variant, sample.block))
        if sample.status not in TIMED:
            self.failed.add((key, sample.variant))
        barred = (key, sample.variant) in self.plan.barred
        if sample.status == "timeout" and not barred and not (sample.reason or "").startswith(NOT_ITS_OWN):
            self.hangs[sample.variant] += 1
