"""Hand-over of optimizer slots: when a parameter changes its shape, momentum and the like change with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from sparsebench.errors import UsageError

Convert = Callable[[Tensor], Tensor]


def check_slots(optimizer: Optimizer, parameter: Tensor) -> None:
    """Raise `UsageError` if a slot of the parameter is neither elementwise nor a scalar: it cannot be converted."""
    for name, slot in optimizer.state.get(parameter, {}).items():
        if isinstance(slot, Tensor):
            if slot.shape == parameter.shape or slot.numel() <= 1:
                continue
            what = f"a tensor {tuple(slot.shape)}"
        elif isinstance(slot, list | tuple | dict):
            what = f"a {type(slot).__name__}"
        else:
            continue
        raise UsageError(
            f"{type(optimizer).__name__} keeps {what} as {name!r} for a parameter {tuple(parameter.shape)}, "
            "which cannot follow a pattern; change the model before the first step"
        )


def convert_slots(optimizer: Optimizer, parameter: Tensor, convert: Convert) -> None:
    """Convert every slot of the parameter's present shape; scalars such as `step` stay."""
    slots = optimizer.state.get(parameter, {})
    for name, slot in slots.items():
        if isinstance(slot, Tensor) and slot.shape == parameter.shape:
            slots[name] = convert(slot)


def replace_parameter(optimizer: Optimizer, old: torch.nn.Parameter, new: torch.nn.Parameter, convert: Convert) -> None:
    """Put `new` in place of `old` in the parameter groups and convert its slots; nothing if `old` is not there."""
    for group in optimizer.param_groups:
        for position, parameter in enumerate(group["params"]):
            if parameter is old:
                group["params"][position] = new
                _rename(group, position, old.dim() > 1)
    if old in optimizer.state:
        convert_slots(optimizer, old, convert)
        optimizer.state[new] = optimizer.state.pop(old)


def _rename(group: dict[str, Any], position: int, to_sparse: bool) -> None:
    # Optimizers made of named parameters (torch 2.6) keep the names beside them.
    names = group.get("param_names")
    if names is not None:
        stem, dot, _ = names[position].rpartition(".")
        names[position] = f"{stem}{dot}{'values' if to_sparse else 'weight'}"
