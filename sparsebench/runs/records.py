"""The records of a run: `run.json` (RunInfo) and one line of `samples.jsonl` per (cell, variant, block) (Sample)."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from sparsebench.plugin import PluginInfo

SCHEMA = 1
Status = Literal[
    "ok", "wrong", "error", "crash", "timeout", "oom", "unsupported", "skipped", "contaminated"
]  # fmt: skip
TIMED: frozenset[str] = frozenset({"ok", "contaminated"})
KINDS = ("kernel", "inference", "training", "accuracy", "time-to-accuracy")  # of cases, in the order of a run's cells
SCORED: frozenset[str] = frozenset({"accuracy", "time-to-accuracy"})  # kinds of case that are compared by scores


class Timing(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):  # no cycles: nothing for gc to look at
    """When and how long: the part of a sample that comparisons read."""

    case: str
    cell: dict[str, Any]  # axis -> value: sparsity, pass, threads, seed, …
    variant: str
    block: int
    status: Status
    reason: str | None = None  # one sentence
    t_ns: list[float] = []  # wall nanoseconds of one repetition, a number for every round
    dropped: list[int] = []  # rounds not to be used: other work spoiled them for any variant, or a clock stood still
    session: int = 0  # how often the run had been resumed: rounds pair only within one session


class Sample(Timing, kw_only=True, omit_defaults=True, gc=False):
    """What one variant did in one cell of one block. `t_ns` is there only when `status` is `ok` or `contaminated`."""

    order: list[int] = []  # place of this variant in each round
    loops: int = 0
    splits_ns: dict[str, float] = {}  # data, forward, backward, optimizer, mask: median over rounds
    metrics: dict[str, float] = {}  # accuracy, loss, …
    verify: dict[str, float] = {}  # max_rel_err, tolerance
    rss_peak: int = 0  # bytes above what the worker held when the cell began
    canary: list[float] = []  # ns of a fixed piece of work before and after
    steal: float = 0.0  # share of the block's time that the hypervisor took
    note: str = ""  # "channels-last", "printed 120 bytes", …


class Level(msgspec.Struct, frozen=True, kw_only=True):
    """How fast one level of memory is read."""

    name: str  # "L1" | "L2" | "L3" | "memory"
    capacity: int  # bytes that it holds for all threads together, of a shared one what was seen; 0: no limit
    gb_s: float  # 1e9 bytes per second, all threads together


class Ceilings(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine can do at most with so many threads at once, in float32."""

    threads: int
    isa: str  # of the loops that measured it: "base" | "avx2" | "avx512"
    gflops: float  # a multiply-add counts as two
    levels: tuple[Level, ...]  # nearest first, memory last

    def level_of(self, size: float) -> Level:
        """The nearest level that holds `size` bytes."""
        return next((level for level in self.levels if not level.capacity or size <= level.capacity), self.levels[-1])


class CellInfo(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What a cell is, for readers that know nothing of kernels."""

    case: str
    kind: str  # one of KINDS
    cell: dict[str, Any]
    version: str  # hash of all that defines the cell: different versions are never compared
    title: str  # "linear 1024->1024 batch 128"
    blocks: int
    op: str = ""  # "linear" | "conv2d"; empty for whole models
    group: str = ""  # means are taken within one group; empty: within the op
    margin: float = 0.03
    tags: list[str] = []  # words of the suite
    useful_flop: float = 0.0  # 2·nnz·positions, times the products in the pass
    dense_flop: float = 0.0
    products: int = 0  # in the pass: forward 1, both 3
    least_bytes: float = 0.0  # that one product must read or write: the kept weights, its inputs, its output, each once
    variants: list[str] = []
    baseline: str = ""


class RunInfo(msgspec.Struct, kw_only=True):
    """The head of a run, written before the first sample."""

    schema: int = SCHEMA
    id: str
    argv: list[str]
    started: str  # ISO 8601, UTC
    suite: dict[str, Any]  # name, text, sha256, summary
    git: dict[str, Any] = {}  # commit, dirty
    host: dict[str, Any] = {}  # fingerprint {…}, volatile {…}, ceilings [Ceilings of each number of threads]
    libraries: dict[str, str] = {}
    plugins: list[PluginInfo] = []
    cells: list[CellInfo] = []
    precision: dict[str, str] = {}  # variant -> precision class
    peers: list[str] = []  # variants that are other people's sparse software
    environment: dict[str, str] = {}  # overrides the workers got
    options: dict[str, Any] = {}  # seed, rounds, shard, selection
    code: str = ""  # hash of the installed package

    def planned(self) -> dict[str, CellInfo]:
        """Cell key -> cell, in the order of the plan."""
        return {cell_key(each.case, each.cell): each for each in self.cells}


def cell_key(case: str, cell: dict[str, Any]) -> str:
    """One string for a cell, the same for the same axes in any order."""
    return f"{case}[{','.join([f'{axis}={value}' for axis, value in sorted(cell.items())])}]"
