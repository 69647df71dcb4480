"""SPDY: the levels of all layers that are fast enough together and harm the loss least.

Frantar & Alistarh, "SPDY: Accurate pruning with speedup guarantees", ICML 2022, section 3. A level's error is taken to
be c·(i / (n - 1))² with i its place among n levels and c the layer's sensitivity. For given sensitivities a dynamic
program finds the best levels within the time; the sensitivities are searched for by the loss that the levels come to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from sparsebench.builtin.allocators._dynamic_program import choose_options
from sparsebench.plugin import LATENCY_LEVELS, BudgetError, Context, Speedup, UsageError, kept, overall

Levels = tuple[int, ...]


class SPDY:
    """`inits` random sensitivities, then local search that gives up after `patience` tries in vain.

    `images` of the calibration give the loss. The model's first and last layer stay dense, as in the paper, unless
    `ends`. Where a sparsity is asked for and no speedup, kept weights stand in for milliseconds.
    """

    name = "spdy"
    needs = frozenset({"calibration"})
    reads_weights = True  # which must be trained ones: the budget of a one-shot method is found after the training

    def __init__(self, inits: int = 40, patience: int = 20, images: int = 256, ends: bool = False) -> None:
        for name, value, least in (("inits", inits, 0), ("patience", patience, 0), ("images", images, 1)):
            if value < least:
                raise UsageError(f"spdy: {name} = {value}; write at least {least}")
        self.inits, self.patience, self.images, self.ends = inits, patience, images, ends
        self._final: dict[str, float] = {}  # the profile that was found
        self._overall = 0.0  # its sparsity

    def allocate(self, layers: Mapping[str, Tensor], target: float, ctx: Context) -> dict[str, float]:
        """Sparsity by layer: the profile that was found, on the way to it all of it in proportion."""
        if not self._final:
            self._final, self._overall = self._for_sparsity(layers, ctx.sparsity, ctx), ctx.sparsity
        if math.isclose(target, self._overall, rel_tol=1e-12):
            return dict(self._final)
        return {name: share * target / self._overall for name, share in self._final.items()}

    def allocate_speedup(self, layers: Mapping[str, Tensor], speedup: Speedup, ctx: Context) -> dict[str, float]:
        """Sparsity by layer that comes to at least a speedup; raises `BudgetError` that says the best reachable."""
        table = speedup.table
        table.check(speedup.times, self.fastest(layers, speedup, ctx), self.name)
        pruned = self._pruned(layers, ctx)
        times = {name: np.array(table.layers[name])[: possible(w, table.sparsities)] for name, w in pruned.items()}
        limit = table.budget(speedup.times) - sum(table.layers[name][0] for name in layers if name not in pruned)
        chosen = self._search(times, limit, table.sparsities, ctx)
        found = {name: share(layers[name], table.sparsities[level]) for name, level in chosen.items()}
        self._final = {**dict.fromkeys(layers, 0.0), **found}
        self._overall = overall(self._final, layers)
        return dict(self._final)

    def fastest(self, layers: Mapping[str, Tensor], speedup: Speedup, ctx: Context) -> dict[str, float]:
        """The sparsities of the greatest speedup."""
        table, found = speedup.table, dict.fromkeys(layers, 0.0)
        for name, weight in self._pruned(layers, ctx).items():
            times = np.array(table.layers[name])[: possible(weight, table.sparsities)]
            found[name] = share(weight, table.sparsities[int(times.argmin())])
        return found

    def _for_sparsity(self, layers: Mapping[str, Tensor], target: float, ctx: Context) -> dict[str, float]:
        """Levels within the number of kept weights; what they leave of it goes to all pruned layers in proportion."""
        pruned = self._pruned(layers, ctx)
        times = {
            name: np.array(
                [kept(w.numel(), level) for level in LATENCY_LEVELS[: possible(w, LATENCY_LEVELS)]], dtype=float
            )
            for name, w in pruned.items()
        }
        dense = sum(weight.numel() for name, weight in layers.items() if name not in pruned)
        limit = (1 - target) * sum(weight.numel() for weight in layers.values()) - dense
        if sum(each.min() for each in times.values()) > limit:
            raise BudgetError(f"spdy has no levels that sparse: {target:g} is out of reach; lower it")
        chosen = self._search(times, limit, LATENCY_LEVELS, ctx)
        counts = grown(
            {n: float(times[n][i]) for n, i in chosen.items()}, {n: w.numel() for n, w in pruned.items()}, limit
        )
        return {name: 1 - counts[name] / w.numel() if name in counts else 0.0 for name, w in layers.items()}

    def _search(
        self, times: Mapping[str, np.ndarray], limit: float, levels: Sequence[float], ctx: Context
    ) -> dict[str, int]:
        """The level of each layer in `times`."""
        names, scorer, database = list(times), ctx.stitched(self.images), ctx.database(levels)
        errors = [(np.arange(len(times[name])) / (len(levels) - 1)) ** 2 for name in names]
        known: dict[Levels, float] = {}

        def solve(sensitivities: np.ndarray) -> Levels:
            costs = [c * error for c, error in zip(sensitivities, errors, strict=True)]
            return tuple(choose_options(costs, [times[name] for name in names], limit))

        def loss(profile: Levels) -> float:
            if profile not in known:
                known[profile] = scorer.loss({n: database[n][i] for n, i in zip(names, profile, strict=True)})
            return known[profile]

        best = searched(len(names), solve, loss, ctx.generator, self.inits, self.patience)
        return dict(zip(names, best, strict=True))

    def _pruned(self, layers: Mapping[str, Tensor], ctx: Context) -> dict[str, Tensor]:
        ends = set() if self.ends else {ctx.layers[0], ctx.layers[-1]}
        found = {name: weight for name, weight in layers.items() if name not in ends}
        if not found:
            raise BudgetError(
                "spdy keeps the first and the last layer dense and there is no other; write spdy@ends=true"
            )
        return found


def share(weight: Tensor, sparsity: float) -> float:
    """The sparsity of a level as whole weights come to it."""
    return 1 - kept(weight.numel(), sparsity) / weight.numel()


def possible(weight: Tensor, levels: Sequence[float]) -> int:
    """How many of the levels, from the first on, leave a layer at least one weight."""
    return sum(kept(weight.numel(), level) >= 1 for level in levels)


def searched(
    count: int,
    solve: Callable[[np.ndarray], Levels],
    loss: Callable[[Levels], float],
    generator: torch.Generator,
    inits: int,
    patience: int,
) -> Levels:
    """The levels of least loss that were met: equal sensitivities first, random ones, then steps from the best.

    A step draws some sensitivities anew, a tenth of them and fewer as tries are in vain.
    """

    def draw(size: int) -> np.ndarray:
        return torch.rand(size, generator=generator, dtype=torch.float64).numpy()

    starts = [np.ones(count), *(draw(count) for _ in range(inits))]
    sensitivities = min(starts, key=lambda each: loss(solve(each)))
    least = loss(solve(sensitivities))
    for changed in range(max(1, round(0.1 * count)), 0, -1):
        vain = 0
        while vain < patience:
            tried = sensitivities.copy()
            tried[torch.randperm(count, generator=generator)[:changed].numpy()] = draw(changed)
            new = loss(solve(tried))
            vain = 0 if new < least else vain + 1
            if new < least:
                sensitivities, least = tried, new
    return solve(sensitivities)


def grown(kept: Mapping[str, float], sizes: Mapping[str, int], total: float) -> dict[str, float]:
    """Numbers of kept weights in the same proportions that sum to `total`; none exceeds its layer's size."""
    full: set[str] = set()
    while True:
        rest = sum(kept[name] for name in kept if name not in full)
        scale = (total - sum(sizes[name] for name in full)) / rest if rest else 1.0
        made = {name: float(sizes[name]) if name in full else scale * kept[name] for name in kept}
        over = {name for name in made if made[name] > sizes[name]}
        if not over:
            return made
        full |= over
