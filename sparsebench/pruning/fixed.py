"""Masks from a method that decides before training or in one shot, for cases that only time a pattern."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sparsebench.errors import InvariantError, UsageError
from sparsebench.pruning.host import Host
from sparsebench.pruning.weights import Weights


def fixed_masks(
    model: nn.Module,
    method: Any,
    allocator: Any,
    sparsity: float,
    seed: int,
    exclude: Collection[str] = (),
    parameters: Mapping[str, Any] | None = None,
    needs: Collection[str] = (),
) -> dict[str, Tensor]:
    """One bool mask for every prunable weight, by parameter name.

    The model is not changed: see `apply_masks`. Raises `UsageError` for a sparsity outside [0, 1), a name in `exclude`
    that is no layer, or a method that decides in the course of a training or from examples; `BudgetError` when the
    target cannot be met; `PluginError` when the method or the allocator breaks the contract.
    """
    host = Host(copy.deepcopy(model), method, allocator, sparsity=sparsity, seed=seed, exclude=exclude,
                parameters=parameters, needs=needs)  # fmt: skip
    host.begin()
    if host.updates == 0:
        try:
            host.finish()
        except InvariantError as error:
            if error.invariant != "final-budget" or host.updates:
                raise
            raise UsageError(
                f"method {host.name} decides in the course of a training; use it in an accuracy case"
            ) from None
    names = tuple(host.masks)
    before, after = Weights(model, names), Weights(host.model, names)
    changed = next((n for n in names if not torch.equal(after[n], before[n] * host.masks[n])), None)
    if changed is not None:
        raise UsageError(f"method {host.name} changes the weights of {changed}; use it in an accuracy case")
    return host.masks
