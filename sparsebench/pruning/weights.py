"""A model's weights under their dense names and shapes, whether a layer is dense or runs on a sparse kernel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sparsebench.nn.layer import SparseLayer


class Weights(Mapping[str, Tensor]):
    """Weight by name ("conv1.weight"), to be read only: of a sparse layer a new dense tensor with zeros outside."""

    def __init__(self, model: nn.Module, names: tuple[str, ...]) -> None:
        self._model, self._names = model, names

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        module = layer_of(self._model, name)
        if isinstance(module, SparseLayer):
            return module.snapshot().to_dense()
        return module.weight.detach()

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def layer_of(model: nn.Module, name: str) -> Any:
    """The module whose weight has this parameter name."""
    return model.get_submodule(name.rpartition(".")[0])


@torch.no_grad()
def write(model: nn.Module, name: str, values: Tensor) -> None:
    """Give a parameter new values [dense shape]; a sparse layer takes those of its pattern."""
    module, leaf = layer_of(model, name), name.rpartition(".")[2]
    if isinstance(module, SparseLayer) and leaf == "weight":
        module.values.copy_(module.snapshot().gather(values))
        module.refresh()
    else:
        getattr(module, leaf).copy_(values)


def dense_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict under the dense model's names, copied: sparse layers as dense weights with zeros."""
    every = model.named_modules(remove_duplicate=False)  # a state dict has a layer under all of its names
    sparse = {name: module for name, module in every if isinstance(module, SparseLayer)}
    state: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        owner, _, leaf = name.rpartition(".")
        if owner not in sparse or leaf == "bias":
            state[name] = tensor.detach().clone()
        elif leaf == "values":
            state[f"{owner}.weight".lstrip(".")] = sparse[owner].snapshot().to_dense()
    return state
