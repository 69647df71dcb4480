"""Copies between a dense layer and its sparse twin: weight, bias, training mode and which gradients are wanted."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from sparsebench.errors import ProblemError, UnsupportedError
from sparsebench.problem import DTYPES
from sparsebench.weight import SparseWeight

M = TypeVar("M", bound=nn.Module)


def dense_weight(module: nn.Linear | nn.Conv2d, mask: Tensor | None) -> SparseWeight:
    """The sparse weight of a dense layer; raises `UnsupportedError` off the cpu, `ProblemError` for another dtype."""
    weight = module.weight
    if weight.device.type != "cpu":
        raise UnsupportedError(
            f"{type(module).__name__} is on {weight.device}; sparse kernels run on the cpu: move it there"
        )
    if str(weight.dtype).removeprefix("torch.") not in DTYPES:
        raise ProblemError(
            f"{type(module).__name__} is {weight.dtype}; sparse kernels compute in {' or '.join(DTYPES)}"
        )
    return SparseWeight.from_dense(weight, mask)


def bare(kind: type[M], *args: Any, **options: Any) -> M:
    """A new dense layer, uninitialised, without drawing from the random state."""
    return kind(*args, **options, device="meta").to_empty(device="cpu")


def copy_dense(source: Any, target: M) -> M:
    """Copy weight (to a dense target), bias, training mode and `requires_grad` from one twin to the other."""
    into: Any = target
    weights = [getattr(m, "values", None) for m in (source, into)]
    old, new = (m.weight if v is None else v for m, v in zip((source, into), weights, strict=True))
    with torch.no_grad():
        if weights[1] is None:
            new.copy_(source.weight)
        if source.bias is not None:
            into.bias.copy_(source.bias)
            into.bias.requires_grad_(source.bias.requires_grad)
    new.requires_grad_(old.requires_grad)
    into.training = source.training
    return target
