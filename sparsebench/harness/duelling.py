"""`ab`: blocks of a variant and its rivals until every pair is decided, or the last look has been taken."""

from __future__ import annotations

from collections.abc import Sequence

from sparsebench.errors import UsageError
from sparsebench.harness.cells import Cell
from sparsebench.harness.crew import Limits
from sparsebench.harness.plan import Plan
from sparsebench.harness.runner import Listener, Runner
from sparsebench.runs.blocks import by_row
from sparsebench.runs.duel import pairs
from sparsebench.runs.records import Sample
from sparsebench.runs.store import RunWriter
from sparsebench.runs.verdicts import LOOKS, settled

DROPPED = 1.5  # times as many blocks as the last look needs: at most a third may be lost to other work
AGAIN = 2  # times the rounds, once a look has not decided


class DuelRunner(Runner):
    """A runner that stops measuring a rival of a cell's first variant once the two are decided."""

    def __init__(
        self,
        plan: Plan,
        writer: RunWriter,
        listener: Listener,
        limits: Limits | None = None,
        looks: Sequence[int] = LOOKS,
    ) -> None:
        self.looks = looks
        self.rows = by_row(writer.run.samples)
        super().__init__(plan, writer, listener, limits)

    def _extent(self) -> tuple[int, int]:
        """As far as the first look, which settles most cells; what is not settled goes on beyond."""
        total = len(self.plan.cells) * min(self.looks[0], max(cell.case.blocks for cell in self.plan.cells))
        return total, min(total, len({(key, block) for key, _, block in self.known}))

    def _missing(self, cell: Cell, number: int) -> list[str]:
        """Both of a pair, as one without the other is none; but B alone once, for nothing else proves it right."""
        missing, able = super()._missing(cell, number), self.plan.running(cell)
        a, *rivals = self.plan.variants[cell.key]
        if a not in able:
            return missing if number == 0 else []
        going = [b for b in rivals if b in able and not self._decided(cell, b, number)]
        return [variant for variant in missing if variant in (a, *going)] if going else []

    def _times(self, cell: Cell) -> int:
        """Twice, after a look that did not decide: noise is in rounds, and a block costs more than its rounds."""
        a, *rivals = (self.rows.get((cell.key, v), {}) for v in self.plan.variants[cell.key])
        return AGAIN if max(len(pairs(a, b)[0]) for b in rivals) >= self.looks[0] else 1

    def _decided(self, cell: Cell, rival: str, number: int) -> bool:
        """Whether a look at the blocks before this one has settled it; the same for a run that is resumed."""
        names = self.plan.variants[cell.key][0], rival
        if any((cell.key, name) in self.failed for name in names):
            return True
        a, b = ({n: s for n, s in self.rows.get((cell.key, v), {}).items() if n < number} for v in names)
        values, ns = pairs(a, b)
        if number - len(values) > (DROPPED - 1) * self.looks[-1]:  # the machine is not quiet enough to say anything
            return True
        return settled(values, cell.case.margin, ns, self.looks) is not None

    def _remember(self, sample: Sample) -> None:
        super()._remember(sample)
        for key, blocks in by_row([sample]).items():
            self.rows.setdefault(key, {}).update(blocks)


def most_blocks(looks: Sequence[int] = LOOKS) -> int:
    """How many blocks there may be, those that are lost counted."""
    return int(looks[-1] * DROPPED)


def looks_within(blocks: int | None) -> tuple[int, ...]:
    """The looks that so many good blocks allow, all of them for None; raises `UsageError` if they allow none."""
    looks = tuple(count for count in LOOKS if blocks is None or count <= blocks)
    if not looks:
        told = ", ".join(map(str, LOOKS))
        raise UsageError(f"--blocks {blocks}: a verdict needs {LOOKS[0]} good blocks; give {told}, or leave it out")
    return looks
