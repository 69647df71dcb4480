"""The host of methods: resolves budgets, asks a method for its update, and checks what it answers.

A method never changes a model: it returns an `Update`, and the host holds every answer to the budget. That keeps
out the faults of published code: an off-by-one threshold, ties dropped together, masks that miss a layer.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from sparsebench.errors import BudgetError, PluginError, UsageError
from sparsebench.pruning.masks import kept, prunable


class Update(NamedTuple):
    """The only way a method changes a model; names are those of the parameters."""

    masks: dict[str, Tensor] | None = None  # bool, True = keep
    weights: dict[str, Tensor] | None = None  # new values
    reset: Literal["none", "changed", "all"] = "none"  # optimizer slots: of weights that changed state, or all


@dataclass(frozen=True, kw_only=True)
class Context:
    """What the host shows a method or an allocator; all of it is to be read only."""

    model: nn.Module
    prunable: Mapping[str, nn.Parameter]
    masks: Mapping[str, Tensor]
    generator: torch.Generator  # draw from this alone, never from the global random state
    parameters: Mapping[str, Any] = field(default_factory=dict)  # of the case
    budgets: Mapping[str, int] = field(default_factory=dict)

    def budget(self, name: str) -> int:
        """How many weights of the layer are kept; empty while the allocator is still at work."""
        return self.budgets[name]


class Method(Protocol):
    """What `MethodSpec.load` gives when it is called without arguments (so far: what needs no training)."""

    def setup(self, ctx: Context) -> Update | None:
        """The update before training; budgets are resolved."""


class Allocator(Protocol):
    """What `AllocatorSpec.load` gives when it is called without arguments."""

    def allocate(self, layers: Mapping[str, nn.Parameter], target: float, ctx: Context) -> dict[str, float]:
        """The sparsity of every layer in `layers`, for an overall `target`."""


def fixed_masks(
    model: nn.Module,
    method: Method,
    allocator: Allocator,
    sparsity: float,
    seed: int,
    exclude: Collection[str] = (),
    parameters: Mapping[str, Any] | None = None,
) -> dict[str, Tensor]:
    """One bool mask for every prunable weight, by parameter name, from a method that decides before training.

    The model is not changed: see `apply_masks`. Raises `UsageError` for a sparsity outside [0, 1) or a
    name in `exclude` that is no layer, `BudgetError` when the target cannot be met, and `PluginError` when the method
    or the allocator breaks the contract.
    """
    if not 0 <= sparsity < 1:
        raise UsageError(f"sparsity = {sparsity!r}; use a share of pruned weights in [0, 1)")
    layers = MappingProxyType(prunable(model, exclude))
    if not layers:
        raise BudgetError("the model has no Linear or Conv2d weight left to prune")
    ctx = Context(
        model=model,
        prunable=layers,
        masks=MappingProxyType({name: torch.ones_like(p, dtype=torch.bool) for name, p in layers.items()}),
        generator=torch.Generator().manual_seed(seed),
        parameters=MappingProxyType(dict(parameters or {})),
    )
    with _unchanged(model, allocator):
        ctx = replace(ctx, budgets=_budgets(allocator, layers, sparsity, ctx))
    with _unchanged(model, method):
        update = method.setup(ctx)
    return _checked(method, update, ctx)


def _budgets(
    allocator: Allocator, layers: Mapping[str, nn.Parameter], target: float, ctx: Context
) -> Mapping[str, int]:
    shares = allocator.allocate(layers, target, ctx)
    if not isinstance(shares, Mapping) or shares.keys() != layers.keys():
        odd = sorted(set(shares) ^ set(layers))[:3] if isinstance(shares, Mapping) else type(shares).__name__
        raise PluginError(
            f"allocator {_name(allocator)}: it must give every layer a sparsity, and no other; wrong: {odd}"
        )
    budgets = {}
    for name, parameter in layers.items():
        share = shares[name]
        if not (isinstance(share, int | float) and math.isfinite(share) and 0 <= share <= 1):
            raise PluginError(f"allocator {_name(allocator)}: {name} gets a sparsity of {share!r}, outside [0, 1]")
        budgets[name] = kept(parameter.numel(), share)
        if budgets[name] == 0:
            raise BudgetError(
                f"{name} has {parameter.numel()} weights and keeps none at a sparsity of {share:g}; "
                "lower it, or exclude the layer"
            )
    return MappingProxyType(budgets)


def _checked(method: Method, update: Update | None, ctx: Context) -> dict[str, Tensor]:
    name = _name(method)
    if not isinstance(update, Update) or update.masks is None:
        raise PluginError(f"method {name}: setup gave no masks, so it cannot be used with fixed masks")
    if update.weights is not None:
        raise PluginError(f"method {name}: setup changes weights, so it cannot be used with fixed masks")
    masks = {layer: update.masks.get(layer, ctx.masks[layer]) for layer in ctx.prunable}
    unknown = sorted(update.masks.keys() - masks.keys())
    if unknown:
        raise PluginError(f"method {name}: it masks {unknown[0]!r}, which is not prunable here")
    for layer, mask in masks.items():
        shape = ctx.prunable[layer].shape
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != shape:
            raise PluginError(f"method {name}: the mask of {layer} must be a bool tensor {list(shape)}")
        count, budget = int(mask.sum()), ctx.budget(layer)
        if count != budget:
            raise PluginError(f"method {name}: {layer} keeps {count} of {mask.numel()} weights; its budget is {budget}")
    return masks


@contextmanager
def _unchanged(model: nn.Module, plugin: object) -> Iterator[None]:
    """Raise `PluginError` if the plugin moved the model's parameters or buffers, or the random state."""
    before = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    yield
    if not torch.equal(state, torch.get_rng_state()):
        torch.set_rng_state(state)
        raise PluginError(f"{_name(plugin)}: it drew from the global random state; use ctx.generator")
    after = model.state_dict()
    for name, tensor in before.items():
        if name not in after or not torch.equal(tensor, after[name]):
            raise PluginError(f"{_name(plugin)}: it changed {name} itself; return an Update instead")


def _name(plugin: object) -> str:
    return type(plugin).__name__
