"""The most that a machine allows in a cell, from its measured ceilings: the roofline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from sparsebench.runs.records import Ceilings, CellInfo, RunInfo

OPERATIONS = "FMA"


class Roof(msgspec.Struct, frozen=True, kw_only=True):
    """The most useful GFLOP/s that a cell allows on one machine, and what sets that limit."""

    gflops: float
    bound: str  # "FMA", or the level of memory: "L1", "L2", "L3", "memory"


def roof_of(info: CellInfo, ceilings: Sequence[Ceilings]) -> Roof | None:
    """The lesser of the peak and what the memory feeds; None for models, and where nothing was measured.

    A product does useful_flop / products operations on at least `least_bytes`, which stream from the nearest level that
    holds them. Williams, Waterman & Patterson, CACM 2009.
    """
    known = next((c for c in ceilings if c.threads == info.cell.get("threads")), None)
    if known is None or not info.least_bytes or not info.useful_flop or not info.products:
        return None
    level = known.level_of(info.least_bytes)
    fed = level.gb_s * info.useful_flop / (info.products * info.least_bytes)
    return Roof(gflops=known.gflops, bound=OPERATIONS) if known.gflops <= fed else Roof(gflops=fed, bound=level.name)


def ceilings_of(info: RunInfo) -> tuple[Ceilings, ...]:
    """What the run measured; () for runs that did not."""
    recorded: Sequence[Mapping[str, Any]] = info.host.get("ceilings", ())
    return tuple(msgspec.convert(each, Ceilings) for each in recorded)
