"""Rows of weights that share a Hessian, pruned one weight at a time by the exact optimal brain surgeon (compiled).

Frantar & Alistarh, "Optimal Brain Compression", NeurIPS 2022, section 4. A row w goes wrong by (w - v)ᵀH(w - v)/2 when
it becomes v. Of a row as it is now, weight p costs w_p²/(2[H⁻¹]_pp); the least is taken away, and all others move to
where the row's error is least without it. That is greedy: no other first weight is better, but other pairs may be.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from sparsebench.kernels import _obs
from sparsebench.plugin import UsageError, inverse


class Trace(NamedTuple):
    """How every row loses its weights. Losses add up to the row's error; keys are what rows are compared by.

    Losses of a row may fall, as one weight pays for the next: opposite weights of two inputs that are nearly the same
    cost much together and nothing apart. Taken by their losses alone, rows would stop between the two. Keys are the
    mean over such steps, so that they only rise (the slopes of the lower convex hull of the summed losses): of all
    ways to take so many weights, in the rows' orders, from the rows, taking the least keys costs the least, wherever
    that does not end within steps that were averaged. Weights that were pruned before have the key -1.
    """

    order: Tensor  # int32 [rows, steps]: columns
    losses: Tensor  # float64 [rows, steps]
    keys: Tensor  # float64 [rows, steps]
    columns: int


class Rows:
    """`weights` [rows, columns] over one positive definite Hessian H = 2·mean(xxᵀ) [columns, columns].

    `unseen` (bool [columns]) are inputs that are always 0, in H only by its diagonal: their weights cost nothing, go
    first, and keep their value as long as they stay. `isa` forces "base", "avx2" or "avx512". Raises `UsageError` if a
    number is not finite; `MemoryError` from `trace` and `at`.
    """

    def __init__(self, weights: Tensor, hessian: Tensor, unseen: Tensor | None = None, isa: str = "") -> None:
        self.weights = weights.detach().double().contiguous()
        if not bool(self.weights.isfinite().all()) or not bool(hessian.isfinite().all()):
            raise UsageError("a weight or a Hessian is not finite; train with a lower learning rate")
        self.inverse = inverse(hessian.double()).contiguous()
        self.least = hessian.double().diagonal().reciprocal().contiguous()
        self._unseen = unseen
        self._isa = isa or _obs.best_isa()

    def trace(self, pruned: Tensor | None = None, group: Tensor | None = None, most: int = 0) -> Trace:
        """Remove weight after weight: all of them, or at most `most` of each group of columns.

        `pruned` (bool [rows, columns]) go first. `group` (int [columns]) says which group a column is of, from 0 on;
        all are larger than `most`.
        """
        rows, columns = self.weights.shape
        group = None if group is None else group.int().contiguous()
        groups = 0 if group is None else int(group.max()) + 1
        steps = columns if group is None else groups * most
        weights = self.weights if self._unseen is None else self.weights.masked_fill(self._unseen, 0)
        before = None if pruned is None else pruned.to(torch.uint8).contiguous()
        order = torch.zeros(rows, steps, dtype=torch.int32)
        losses, keys = torch.zeros(2, rows, steps, dtype=torch.float64)
        if steps > 0:
            _obs.trace(
                weights.data_ptr(), self.inverse.data_ptr(), self.least.data_ptr(), _address(before),
                order.data_ptr(), losses.data_ptr(), keys.data_ptr(), rows=rows, columns=columns, steps=steps,
                group=_address(group), groups=groups, most=most, isa=self._isa, threads=torch.get_num_threads(),
            )  # fmt: skip
        return Trace(order, losses, keys, columns)

    def at(self, order: Tensor, counts: Tensor) -> Tensor:
        """The rows when so many weights of each are gone in this order: float64 [rows, levels, columns].

        `counts` is [rows, levels], rising in each row.
        """
        rows, columns = self.weights.shape
        levels, counts = counts.shape[1], counts.int().contiguous()
        results = torch.empty(rows, levels, columns, dtype=torch.float64)
        _obs.replay(
            self.weights.data_ptr(), self.inverse.data_ptr(), self.least.data_ptr(), order.data_ptr(),
            counts.data_ptr(), results.data_ptr(), rows=rows, columns=columns, steps=order.shape[1], levels=levels,
            isa=self._isa, threads=torch.get_num_threads(),
        )  # fmt: skip
        return results


def ranks(traces: Mapping[str, Trace]) -> dict[str, Tensor]:
    """When each weight goes if the rows of all these layers compete: float64 [rows, columns], inf if never.

    Losses of a layer count as shares of what all of them come to, which is the mean square of its outputs over 2: what
    a norm or the next layer undoes by its scale, as a batch norm does, must not say which layer is pruned. No two ranks
    are the same, and those of a row are in its order, so that any number of the lowest is a beginning of every row's.
    """
    if not traces:
        return {}
    keys = torch.cat([_shares(trace).reshape(-1) for trace in traces.values()])
    places = torch.empty_like(keys)
    places[keys.argsort(stable=True)] = torch.arange(len(keys), dtype=keys.dtype)
    parts = places.split([trace.keys.numel() for trace in traces.values()])
    made = {}
    for (name, trace), part in zip(traces.items(), parts, strict=True):
        never = torch.full((len(trace.order), trace.columns), torch.inf, dtype=keys.dtype)
        made[name] = never.scatter_(1, trace.order.long(), part.reshape(trace.order.shape))
    return made


def _shares(trace: Trace) -> Tensor:
    total = trace.losses.sum()
    return torch.where(trace.keys > 0, trace.keys / total, trace.keys)


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()
