"""What the samples of one row come to beside their times."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from sparsebench.runs.records import TIMED, Sample


class Tally:
    """Counts, the worst of what was verified, what was split and scored, in one pass: a large run has 150,000 samples.

    What was verified, split and scored counts from samples of the statuses in `tells` alone.
    """

    def __init__(self, samples: Sequence[Sample], tells: Collection[str]) -> None:
        self.samples = len(samples)
        self.timed = self.rounds = self.dropped = self.rss_peak = 0
        self.notes: dict[str, None] = {}  # in the order they first come
        self.splits_ns: list[Mapping[str, float]] = []
        self.metrics: list[Mapping[str, float]] = []
        self.verify: dict[str, float] = {}  # the largest of each number
        for sample in samples:
            self.timed += sample.status in TIMED
            self.rounds += len(sample.t_ns)
            if sample.dropped:
                self.dropped += len(set(sample.dropped))
            if sample.note:
                self.notes |= dict.fromkeys(sample.note.split("; "))
            if sample.status in tells:
                if sample.rss_peak > self.rss_peak:
                    self.rss_peak = sample.rss_peak
                for name, value in sample.verify.items():
                    if value > self.verify.get(name, -math.inf):
                        self.verify[name] = value
                if sample.splits_ns:
                    self.splits_ns.append(sample.splits_ns)
                if sample.metrics:
                    self.metrics.append(sample.metrics)
