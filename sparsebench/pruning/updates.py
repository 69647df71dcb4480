"""Looks at what a method answers before anything is changed: names, shapes, and the budget of every mask."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from sparsebench.errors import InvariantError
from sparsebench.pruning.context import Context
from sparsebench.pruning.contract import Update


def checked_masks(update: Update, ctx: Context, needs: Collection[str], where: str) -> dict[str, Tensor]:
    """Copies of the update's masks; raises `InvariantError` ("scope", "budget") naming layer and count."""
    if update.masks is None:
        return {}
    _in_scope(update.masks, ctx, where, "masks")
    masks = {}
    for name, mask in update.masks.items():
        shape = ctx.masks[name].shape
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != shape:
            raise InvariantError("scope", f"{where}: the mask of {name} must be a bool tensor {list(shape)}")
        masks[name] = mask.detach().clone(memory_format=torch.contiguous_format)
    broken = _broken_budget(update, {**ctx.masks, **masks}, ctx, needs)
    if broken:
        raise InvariantError("budget", f"{where}: {broken}")
    return masks


def checked_weights(update: Update, ctx: Context, where: str) -> dict[str, Tensor]:
    """The update's weights; raises `InvariantError` ("scope") for names, shapes and values that cannot be."""
    if update.weights is None:
        return {}
    _in_scope(update.weights, ctx, where, "weights")
    computed = sorted(update.weights.keys() & set(ctx.reparametrised))
    if computed:
        raise InvariantError("scope", f"{where}: the weights of {computed[0]} are computed; they cannot be set")
    for name, values in update.weights.items():
        shape = ctx.masks[name].shape
        if not isinstance(values, Tensor) or not values.is_floating_point() or values.shape != shape:
            raise InvariantError("scope", f"{where}: the weights of {name} must be a float tensor {list(shape)}")
        if not bool(values.isfinite().all()):
            raise InvariantError("scope", f"{where}: the weights of {name} are not finite")
    return dict(update.weights)


def _in_scope(given: Mapping[str, Tensor], ctx: Context, where: str, what: str) -> None:
    stray = sorted(given.keys() - ctx.masks.keys())
    if stray:
        raise InvariantError("scope", f"{where}: {what} for {stray[0]!r}, which is not prunable here")


def _broken_budget(update: Update, masks: Mapping[str, Tensor], ctx: Context, needs: Collection[str]) -> str | None:
    given = update.masks or {}
    if update.kept is None:
        if "sequential" in needs:  # layer by layer: the turn of the others comes, and the end is held to all of it
            masks = {name: masks[name] for name in given}
        return ctx.budgets(update.sparsity).broken(masks)
    if "own_budget" not in needs:
        return "it declares budgets of its own, but does not need 'own_budget'"
    for name in {**update.kept, **given}:
        if name not in masks:
            return f"it declares {update.kept[name]} weights of {name!r}, which is not prunable here"
        count, declared = int(masks[name].sum()), update.kept.get(name, masks[name].numel())
        if count != declared:
            return f"{name} keeps {count} weights; it declared {declared}"
    return None
