"""How sparse a model is, counted in three ways that differ, and how many bytes it takes in three formats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sparsebench.pruning.modes import evaluating

VALUE, INDEX = 4, 4  # bytes of a float32 value and of an int32 column or row offset


def sparsities(model: nn.Module, masks: Mapping[str, Tensor], example: Tensor) -> dict[str, float]:
    """Shares of pruned weights: of the prunable ones, of all parameters, and of all multiply-adds of linear and conv2d.

    `model` is dense. The three differ by far: what is excluded, biases and norms, and how often a weight is used.
    """
    pruned = {name: mask.numel() - int(mask.sum()) for name, mask in masks.items()}
    every = sum(parameter.numel() for parameter in model.parameters())
    uses = positions(model, example)
    work = {name: model.get_parameter(name).numel() * count for name, count in uses.items()}
    saved = sum(pruned[name] * uses.get(name, 0) for name in pruned)
    prunable = sum(mask.numel() for mask in masks.values())
    return {
        "sparsity": sum(pruned.values()) / max(1, prunable),
        "sparsity_all": sum(pruned.values()) / max(1, every),
        "sparsity_flops": saved / max(1, sum(work.values())),
    }


@torch.no_grad()
def positions(model: nn.Module, example: Tensor) -> dict[str, int]:
    """How often an example meets each Linear or Conv2d weight, by parameter name: output positions, over all its uses.

    Modes, statistics and random state stay as they are.
    """
    found: dict[str, int] = {}
    names = {id(parameter): name for name, parameter in model.named_parameters()}

    def count(module: Any, _inputs: Any, output: Tensor) -> None:
        features = module.out_channels if isinstance(module, nn.Conv2d) else module.out_features
        name = names[id(module.weight)]
        found[name] = found.get(name, 0) + output.numel() // (output.shape[0] * features)

    layers = [module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    handles = [module.register_forward_hook(count) for module in layers]
    try:
        with evaluating(model):
            model(example[:1])
    finally:
        for handle in handles:
            handle.remove()
    return found


def byte_sizes(state: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, int]:
    """Bytes of a state dict in float32: masked weights as CSR, as a bitmask with values, and all of it dense."""
    sizes = {"bytes_csr": 0, "bytes_bitmask": 0, "bytes_dense": 0}
    for name, tensor in state.items():
        dense = tensor.numel() * (VALUE if tensor.is_floating_point() else tensor.element_size())
        sizes["bytes_dense"] += dense
        if name not in masks or bool(masks[name].all()):
            sizes["bytes_csr"] += dense
            sizes["bytes_bitmask"] += dense
            continue
        kept = int(masks[name].sum())
        sizes["bytes_csr"] += kept * (VALUE + INDEX) + (tensor.shape[0] + 1) * INDEX
        sizes["bytes_bitmask"] += kept * VALUE + (tensor.numel() + 7) // 8
    return sizes
