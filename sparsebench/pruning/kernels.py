"""Masks meet kernels: while a pattern stands still its layers run on a sparse backend, in between they are dense."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sparsebench.errors import UsageError
from sparsebench.nn import densify, sparse_layers, sparsify
from sparsebench.nn.layer import SparseLayer
from sparsebench.pruning.masks import sparsity_of

if TYPE_CHECKING:
    from sparsebench.nn.backends import BackendHandle
    from sparsebench.plugin import Backend


@dataclass
class Kernels:
    """The backend that layers run on, an input to see their shapes by, and the least sparsity worth exchanging."""

    backend: str | Backend | BackendHandle
    example_input: Tensor
    min_sparsity: float = 0.5
    swaps: int = field(default=0, init=False)  # layers exchanged so far, either way
    _stay: set[str] = field(default_factory=set, init=False)  # names of weights that the backend cannot do

    def settle(self, model: nn.Module, masks: Mapping[str, Tensor], optimizer: Optimizer | None) -> None:
        """Have every layer that is sparse enough run on the backend with its mask as the pattern.

        Values, gradients and optimizer slots go along. Layers that are there already only change their pattern.
        """
        wanted = {name for name, mask in masks.items() if sparsity_of({name: mask}) >= self.min_sparsity} - self._stay
        present = {_weight(name): layer for name, layer in sparse_layers(model).items()}
        if "weight" in wanted:
            raise UsageError("a model that is one lone layer cannot run on kernels in training; put it into a module")
        if wanted == present.keys():
            self._patterns(present, masks, optimizer)
            return
        self.leave(model, optimizer)
        chosen = {name: masks[name] for name in wanted}
        if chosen:
            sparsify(model, example_input=self.example_input, backend=self.backend, optimizer=optimizer,
                     min_sparsity=max(self.min_sparsity, 1e-9), masks=_for_all(model, chosen))  # fmt: skip
            made = {_weight(name) for name in sparse_layers(model)}
            self._stay |= wanted - made
            self.swaps += len(made)

    def leave(self, model: nn.Module, optimizer: Optimizer | None) -> None:
        """Make every layer dense again, with zeros outside its pattern."""
        count = len(sparse_layers(model))
        if count:
            densify(model, optimizer)
            self.swaps += count

    @staticmethod
    def _patterns(present: Mapping[str, SparseLayer], masks: Mapping[str, Tensor], optimizer: Optimizer | None) -> None:
        for name, layer in present.items():
            if not bool((layer.mask() == masks[name]).all()):
                layer.set_pattern(masks[name], optimizer=optimizer)


def _for_all(model: nn.Module, chosen: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Masks for every layer that could be exchanged: without one, zeros that were never pruned would be a pattern."""
    return {
        _weight(name): chosen.get(_weight(name), torch.ones_like(module.weight, dtype=torch.bool))
        for name, module in model.named_modules()
        if type(module) in (nn.Linear, nn.Conv2d)  # subclasses and reparametrised layers stay dense
    }


def _weight(layer: str) -> str:
    return f"{layer}.weight" if layer else "weight"
