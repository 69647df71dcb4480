"""Optimal Brain Compression: every layer's rows by the exact optimal brain surgeon, chosen over the layer or the model.

Frantar & Alistarh, "Optimal Brain Compression", NeurIPS 2022, section 4. Their inputs are those of the dense model
(`sequential=false`); with `sequential=true` a layer sees what the pruned ones before it give. Where the whole model
competes, weights of different layers are compared by the share of their layer's mean squared output that their going
costs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from sparsebench.builtin.methods._obs import Rows, Trace, ranks
from sparsebench.plugin import (
    NM,
    BudgetError,
    Calibration,
    Context,
    UnsupportedError,
    Update,
    UsageError,
    damped,
    hessian,
    nm_mask,
    top_k_mask,
)

# Not 0 as in the authors' code: pixels that are always black and inputs that repeat each other leave hardly any Hessian
# regular, and its inverse would be the noise of a few examples. SparseGPT's is the same, flat from 0.001 to 0.1.
DAMP = 0.01


class OBC:
    """Prunes after training; remembers nothing between events."""

    def setup(self, ctx: Context) -> None:
        """Look at the options and at the width of every layer, before any work starts."""
        _check(ctx)

    def compress(self, calibration: Calibration, ctx: Context) -> Iterator[Update]:
        """One update; with `sequential=true` one for each layer, in the order in which they run."""
        _check(ctx)  # again: the budget may have been found since, of the trained model
        names = list(ctx.prunable)
        if ctx.parameters["sequential"]:
            for name in calibration.execution_order(ctx.model, names):
                yield Update(*self._pruned([name], calibration, ctx))
        elif ctx.budgets().scope == "model":
            yield Update(*self._pruned(names, calibration, ctx))
        else:  # one layer's Hessian at a time
            masks, weights = {}, {}
            for name in names:
                mask, weight = self._pruned([name], calibration, ctx)
                masks.update(mask)
                weights.update(weight)
            yield Update(masks, weights)

    def levels(self, calibration: Calibration, ctx: Context, sparsities: Sequence[float]) -> dict[str, list[Tensor]]:
        """The weights of every layer at each of these sparsities, each layer alone, from one trace of it.

        A layer keeps round((1 - sparsity)·n) of its weights, and at least one. For allocators that choose among levels.
        """
        if not all(0 <= sparsity <= 1 for sparsity in sparsities):
            raise UsageError(f"sparsities = {list(sparsities)}; use shares of pruned weights from 0 to 1")
        made = {}
        for name, weight in ctx.prunable.items():
            kept = [max(1, round((1 - sparsity) * weight.numel())) for sparsity in sparsities]
            falling = sorted(set(kept), reverse=True)
            with _named(name):
                layer = Layer(name, calibration, ctx)
                trace = layer.trace()
                scores = ranks({name: trace})[name]
                gone = torch.stack([(~top_k_mask(scores, keep)).sum(1) for keep in falling], 1)
                results = layer.at(trace, gone).to(weight.dtype)
            made[name] = [results[:, falling.index(keep)].reshape(weight.shape) for keep in kept]
        return made

    def _pruned(
        self, names: list[str], calibration: Calibration, ctx: Context
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Masks and weights of layers that compete with each other."""
        whole = {name: torch.ones_like(ctx.masks[name]) for name in names if _keeps_all(name, ctx)}
        layers, traces, weights = {}, {}, {}
        for name in (name for name in names if name not in whole):
            with _named(name):
                layers[name] = Layer(name, calibration, ctx)
                traces[name] = layers[name].trace(_rule(name, ctx))
        scores = {name: score.reshape(ctx.prunable[name].shape) for name, score in ranks(traces).items()}
        masks = _selected(scores, ctx)
        for name, mask in masks.items():
            with _named(name):
                gone = (~mask).flatten(1).sum(1, keepdim=True)
                weights[name] = layers[name].at(traces[name], gone).reshape(mask.shape).to(ctx.prunable[name].dtype)
        return whole | masks, weights


class Layer:
    """A layer as rows over the Hessians of its groups, its rows and columns as in its weight."""

    def __init__(self, name: str, calibration: Calibration, ctx: Context) -> None:
        weight = ctx.prunable[name]
        self._shape = weight.shape
        exact = hessian(calibration, ctx.model, name)
        regular, damping = damped(exact, float(ctx.parameters.get("damp", DAMP)))
        if damping.note:
            ctx.note(damping.note)
        by_group = (len(exact), -1, exact.shape[-1])
        self._pruned = (~ctx.masks[name]).reshape(by_group)
        groups = zip(weight.reshape(by_group), regular, exact.diagonal(dim1=-2, dim2=-1) == 0, strict=True)
        self._groups = [Rows(rows, of_group, unseen) for rows, of_group, unseen in groups]

    def trace(self, rule: NM | None = None) -> Trace:
        """All rows, of all groups; with a rule only as many weights as its groups lose."""
        group = None if rule is None else _along_inputs(self._shape, rule)
        most = 0 if rule is None else rule.group - rule.keep
        each = [rows.trace(pruned, group, most) for rows, pruned in zip(self._groups, self._pruned, strict=True)]
        order, losses, keys = (torch.cat([getattr(t, field) for t in each]) for field in ("order", "losses", "keys"))
        return Trace(order, losses, keys, each[0].columns)

    def at(self, trace: Trace, counts: Tensor) -> Tensor:
        """The rows when `counts` [rows, levels] of them are gone: float64 [rows, levels, columns]."""
        count = len(self._groups)
        parts = zip(self._groups, trace.order.chunk(count), counts.chunk(count), strict=True)
        return torch.cat([rows.at(order, gone) for rows, order, gone in parts])


def _keeps_all(name: str, ctx: Context) -> bool:
    """Whether there is nothing to prune in a layer, so that it needs no Hessian."""
    return ctx.budgets().scope != "model" and ctx.budget(name) == ctx.prunable[name].numel()


def _rule(name: str, ctx: Context) -> NM | None:
    """The N:M rule that a layer is under."""
    budget = ctx.budgets()
    return budget.scope if isinstance(budget.scope, NM) and name in budget.groups else None


def _check(ctx: Context) -> None:
    """Raise what is wrong with options, budget and layers."""
    p, scope = ctx.parameters, ctx.budgets().scope
    if not (p["damp"] >= 0 and math.isfinite(p["damp"])):
        raise UsageError(f"obc: damp = {p['damp']!r}; use a share of the Hessian's mean diagonal, 0 or more")
    if p["columns"] < 1:
        raise UsageError(f"obc: columns = {p['columns']!r}; use the most inputs that a layer may have, 1 or more")
    if p["sequential"] and scope == "model":
        raise UsageError("obc: sequential = True, and the whole model competes; use sequential=false, uniform or erk")
    for name, weight in ctx.prunable.items():
        columns = weight[0].numel()
        if columns > p["columns"]:
            raise UnsupportedError(
                f"obc: {name} has {columns} inputs, more than columns = {p['columns']}: each of {len(weight)} rows "
                f"takes {columns**3 / 3:.0e} multiply-adds; exclude it, use sparsegpt, or set columns={columns}"
            )
        rule = _rule(name, ctx)
        if rule is not None and weight.shape[1] % rule.group:
            raise BudgetError(f"{name} has {weight.shape[1]} input channels: no whole groups of {rule.group}")


def _along_inputs(shape: Sequence[int], rule: NM) -> Tensor:
    """Which N:M group every column of a weight [out, in, …] is of: int [columns]. Places in a window have their own."""
    window = math.prod(shape[2:])
    column = torch.arange(shape[1] * window)
    return column // window // rule.group * window + column % window


def _selected(scores: dict[str, Tensor], ctx: Context) -> dict[str, Tensor]:
    """Masks within the budget, of one layer or of all."""
    if ctx.budgets().scope == "model":
        return ctx.select(scores)
    rules = {name: _rule(name, ctx) for name in scores}
    return {
        name: top_k_mask(score, ctx.budget(name)) if (rule := rules[name]) is None else nm_mask(score, *rule)
        for name, score in scores.items()
    }


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Errors about numbers and memory say of which layer they are."""
    try:
        yield
    except (ArithmeticError, UsageError) as error:
        raise UsageError(f"obc: {name}: {error}") from None
    except MemoryError as error:
        raise MemoryError(f"obc: {name}: {error}; exclude the layer, or use sparsegpt") from None
