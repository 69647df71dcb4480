"""A speedup as the target: the sparsity that comes to it, by a table of measured times, for any allocator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from sparsebench.errors import BudgetError, PluginError, UsageError
from sparsebench.pruning.budget import resolve
from sparsebench.pruning.contract import NM, offers
from sparsebench.pruning.latency import LatencyTable

if TYPE_CHECKING:
    from sparsebench.pruning.context import Context
    from sparsebench.pruning.host import Host

STEPS = 1000  # sparsities that are tried are multiples of 1 / STEPS


@dataclass(frozen=True)
class Speedup:
    """How many times faster than the dense model the pruned one shall be, and what its layers cost."""

    times: float
    table: LatencyTable


def settle(host: Host, trained: bool) -> None:
    """Resolve the host's budget, now if this is when its time is: of a speedup the sparsity that comes to it."""
    if host.late == trained:
        host.sparsity = host.asked if host.speedup is None else sparsity_for(host.speedup, host.allocator, host.ctx)
        host.ctx.budgets()


def sparsity_for(speedup: Speedup, allocator: Any, ctx: Context) -> float:
    """The overall sparsity that meets a speedup: of the allocator's own solution if it has one, or the least that does.

    Raises `BudgetError` that says the best reachable one, `UsageError` for an allocator of one sparsity alone.
    """
    solve = offers(allocator, "allocate_speedup")
    if solve is not None:
        return overall(solve(ctx.prunable, speedup, ctx), ctx.prunable)
    shares = _Shares(allocator, ctx)
    top = shares.top()
    speedup.table.check(speedup.times, shares.at(top), _title(allocator))
    low, high = 0, top  # what `low` gives is too slow, what `high` gives is fast enough
    while high - low > 1:
        middle = (low + high) // 2
        enough = speedup.table.speedup(shares.at(middle)) >= speedup.times
        low, high = (low, middle) if enough else (middle, high)
    return high / STEPS


def check_reachable(speedup: Speedup, allocator: Any, ctx: Context) -> None:
    """Raise `BudgetError` for a speedup that no sparsity of the allocator comes to, before anything is trained.

    Where all weights of a model compete it is known only of the trained ones.
    """
    fastest = offers(allocator, "fastest")
    if fastest is not None:
        speedup.table.check(speedup.times, fastest(ctx.prunable, speedup, ctx), _title(allocator))
    elif getattr(allocator, "scope", "layer") != "model":
        shares = _Shares(allocator, ctx)
        speedup.table.check(speedup.times, shares.at(shares.top()), _title(allocator))


def check_allocator(allocator: Any) -> None:
    """Raise `UsageError` for an allocator that cannot be asked for a speedup."""
    scope = getattr(allocator, "scope", "layer")
    if isinstance(scope, NM):
        raise UsageError(f"groups of {scope} have one sparsity, and one speed; write sparsity in place of speedup")


def overall(shares: Mapping[str, float], layers: Mapping[str, Tensor]) -> float:
    """The share of pruned weights over all layers."""
    if shares.keys() != set(layers):
        raise PluginError(
            f"an allocator must give every layer a sparsity; wrong: {sorted(shares.keys() ^ set(layers))[:3]}"
        )
    sizes = {name: weight.numel() for name, weight in layers.items()}
    return sum(shares[name] * size for name, size in sizes.items()) / sum(sizes.values())


class _Shares:
    """What an allocator gives every layer at a number of steps, as counts of weights come out."""

    def __init__(self, allocator: Any, ctx: Context) -> None:
        self.allocator, self.ctx = allocator, ctx
        check_allocator(allocator)

    def at(self, step: int) -> dict[str, float]:
        """Sparsity by layer; where all weights compete, as the largest of now would win."""
        layers = self.ctx.prunable
        budget = resolve(self.allocator, layers, step / STEPS, self.ctx)
        kept = dict(budget.layers)
        if budget.scope == "model":
            masks = budget.select({name: weight.abs() for name, weight in layers.items()})
            kept = {name: int(mask.sum()) for name, mask in masks.items()}
        return {name: 1 - kept[name] / weight.numel() for name, weight in layers.items()}

    def top(self) -> int:
        """The last step before a layer would be left empty; raises the first step's `BudgetError` if there is none."""
        self.at(1)
        low, high = 1, STEPS
        while high - low > 1:
            middle = (low + high) // 2
            try:
                self.at(middle)
                low = middle
            except BudgetError:
                high = middle
        return low


def _title(allocator: Any) -> str:
    return str(getattr(allocator, "name", type(allocator).__name__.lower()))
