"""Budgets: how many weights every layer keeps at a sparsity, over what they compete, and the choice by scores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sparsebench.errors import BudgetError, PluginError
from sparsebench.pruning.contract import NM, Allocator, Scope
from sparsebench.pruning.masks import kept, nm_mask, top_k_mask

if TYPE_CHECKING:
    from sparsebench.pruning.context import Context


@dataclass(frozen=True)
class Budget:
    """What one sparsity allows. `layers` is kept weights by layer; where the whole model competes, `total` alone binds.

    `groups` are the layers whose weights are chosen by N:M groups.
    """

    sparsity: float
    layers: Mapping[str, int]
    total: int
    scope: Scope = "layer"
    groups: frozenset[str] = frozenset()

    def select(self, scores: Mapping[str, Tensor], empty: bool = False) -> dict[str, Tensor]:
        """Masks of the highest scores within this budget, exactly; of equal ones the first are kept.

        `scores` by layer, each of its weight's shape. Raises `BudgetError` naming a layer that would be left empty,
        unless `empty` allows it.
        """
        missing = sorted(self.layers.keys() ^ scores.keys())
        if missing:
            raise PluginError(f"scores are needed for every prunable layer and no other; wrong: {missing[:3]}")
        if self.scope == "model":
            masks = self._over_the_model(scores)
        else:
            masks = {name: self._of_layer(name, score) for name, score in scores.items()}
        for name, mask in masks.items():
            if not empty and not bool(mask.any()):
                raise BudgetError(
                    f"{name} keeps none of its {mask.numel()} weights at a sparsity of {self.sparsity:g}; "
                    "lower it, exclude the layer, or use another allocator"
                )
        return masks

    def _of_layer(self, name: str, score: Tensor) -> Tensor:
        if isinstance(self.scope, NM) and name in self.groups:
            return nm_mask(score, *self.scope)
        return top_k_mask(score, self.layers[name])

    def _over_the_model(self, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        flat = torch.cat([scores[name].detach().reshape(-1).double() for name in self.layers])
        parts = top_k_mask(flat, self.total).split([scores[name].numel() for name in self.layers])
        return {name: part.reshape(scores[name].shape) for name, part in zip(self.layers, parts, strict=True)}

    def broken(self, masks: Mapping[str, Tensor]) -> str | None:
        """How masks miss this budget, naming the first layer; None if they meet it exactly.

        Layers without a mask are not looked at, and without all of them there is no total.
        """
        counts = {name: int(masks[name].sum()) for name in self.layers if name in masks}
        if self.scope == "model":
            total = sum(counts.values())
            empty = next((name for name, count in counts.items() if count == 0), None)
            if empty is not None:
                return f"{empty} keeps no weight"
            if total == self.total or len(counts) < len(self.layers):
                return None
            return f"the model keeps {total} weights; its budget is {self.total}"
        for name, count in counts.items():
            if count != self.layers[name]:
                return f"{name} keeps {count} of {masks[name].numel()} weights; its budget is {self.layers[name]}"
            if isinstance(self.scope, NM) and name in self.groups and not _grouped(masks[name], self.scope):
                return f"{name} does not keep {self.scope.keep} of every {self.scope.group} along its input channels"
        return None


def dense_budget(layers: Mapping[str, Tensor]) -> Budget:
    """Every weight is kept."""
    counts = {name: weight.numel() for name, weight in layers.items()}
    return Budget(0.0, MappingProxyType(counts), sum(counts.values()))


def resolve(allocator: Allocator, layers: Mapping[str, Tensor], sparsity: float, ctx: Context) -> Budget:
    """What `allocator` makes of a sparsity; raises `BudgetError`, or `PluginError` if it breaks the contract."""
    if sparsity == 0:
        return dense_budget(layers)
    title = type(allocator).__name__
    shares = allocator.allocate(layers, sparsity, ctx)
    if not isinstance(shares, Mapping) or shares.keys() != set(layers):
        odd = sorted(set(shares) ^ set(layers))[:3] if isinstance(shares, Mapping) else type(shares).__name__
        raise PluginError(f"allocator {title}: it must give every layer a sparsity, and no other; wrong: {odd}")
    scope: Scope = getattr(allocator, "scope", "layer")
    counts = {}
    for name, weight in layers.items():
        share = shares[name]
        if not (isinstance(share, int | float) and math.isfinite(share) and 0 <= share <= 1):
            raise PluginError(f"allocator {title}: {name} gets a sparsity of {share!r}, outside [0, 1]")
        counts[name] = kept(weight.numel(), share)
        if counts[name] == 0 and scope != "model":  # there it may win more than its share
            raise BudgetError(
                f"{name} has {weight.numel()} weights and keeps none at a sparsity of {share:g}; "
                "lower it, or exclude the layer"
            )
    groups = frozenset(name for name in layers if isinstance(scope, NM) and shares[name] > 0)
    sizes = sum(weight.numel() for weight in layers.values())
    total = kept(sizes, sparsity) if scope == "model" else sum(counts.values())
    return Budget(sparsity, MappingProxyType(counts), total, scope, groups)


def _grouped(mask: Tensor, rule: NM) -> bool:
    by_group = mask.movedim(1, -1).reshape(-1, rule.group)
    return bool((by_group.sum(1) == rule.keep).all())
