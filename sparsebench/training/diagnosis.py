"""Where numbers stopped being finite: the first weight, else the first layer whose output is not."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


@torch.no_grad()
def first_not_finite(model: nn.Module, inputs: Tensor) -> str:
    """One phrase that names the layer; statistics of norms and the random state stay as they were."""
    if not bool(inputs.isfinite().all()):
        return "the inputs are not finite"
    for name, parameter in model.named_parameters():
        if not bool(parameter.isfinite().all()):
            return f"{name} is not finite"
    found: list[str] = []

    def look(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and not bool(output.isfinite().all()):
                found.append(name)

        return hook

    handles = [module.register_forward_hook(look(name or "the model")) for name, module in model.named_modules()]
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        with torch.random.fork_rng(devices=[]):
            model(inputs)
    finally:
        for handle in handles:
            handle.remove()
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
    return f"the output of {found[0]} is not finite" if found else "every layer's output is finite, the loss is not"
