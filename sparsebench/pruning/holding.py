"""What is in force on a model: masks, where they are held (dense layers, kernels, optimizer), and their change."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sparsebench.nn.layer import SparseLayer
from sparsebench.pruning.invariants import check_weights
from sparsebench.pruning.keeper import MaskKeeper
from sparsebench.pruning.kernels import Kernels
from sparsebench.pruning.slots import check_known, forget, keep_slots
from sparsebench.pruning.weights import layer_of, write


class Holding:
    """Masks by weight, True = kept. Layers run on `kernels`, if there are any, while their masks are sparse enough."""

    def __init__(self, model: nn.Module, layers: Mapping[str, nn.Parameter], kernels: Kernels | None) -> None:
        self.model, self.kernels = model, kernels
        self.masks: dict[str, Tensor] = {n: torch.ones_like(p, dtype=torch.bool) for n, p in layers.items()}
        self.optimizer: Optimizer | None = None
        self.reparametrised: list[str] = []  # weights that are computed: their masks are not held
        self._keeper = MaskKeeper(model, {})
        self._stored: list[Tensor] = self._weights()
        self._settled = True

    def attach(self, optimizer: Optimizer) -> None:
        """Take the optimizer; raises `UsageError` for one whose slots are not known."""
        check_known(optimizer)
        self.optimizer = optimizer
        self._settled = False
        self.settle()

    def settle(self) -> None:
        """Have layers that are sparse enough run on their kernels, and hold the masks of the others."""
        if self._settled:
            return
        if self.kernels is not None and self.optimizer is not None:
            self.kernels.settle(self.model, self.masks, self.optimizer)
        self._keeper = MaskKeeper(self.model, {n: m for n, m in self._held().items() if not self._is_sparse(n)})
        self._stored = self._weights()
        self._settled = True

    def leave_kernels(self) -> None:
        """Make every layer dense, masks held, until `settle`: for dense gradients and for snapshots."""
        if self.kernels is not None:
            self.kernels.leave(self.model, self.optimizer)
            self._keeper = MaskKeeper(self.model, self._held())
            self._stored = self._weights()
            self._settled = False

    def change(self, masks: dict[str, Tensor], weights: Mapping[str, Tensor], reset: str) -> None:
        """Put new masks in force, then new weights; forget what the optimizer knew of masked ones, or as `reset` says.

        Weights that come back are 0, and so is what the optimizer remembers of them, unless `weights` says otherwise.
        """
        old = self.masks
        if masks.keys() != old.keys() or any(masks[name] is not old[name] for name in masks):
            self.masks, self._settled = masks, False
            self.settle()
        for name, values in weights.items():
            write(self.model, name, values)
        self._keeper.apply()
        if self.optimizer is not None:
            self._clean_slots(self.optimizer, old, reset)

    def enforce(self, masks: dict[str, Tensor] | None = None) -> None:
        """Hold the masks again (or others) after weights and optimizer state were loaded from elsewhere."""
        self.masks = self.masks if masks is None else masks
        self._settled = False
        self.settle()
        self._keeper.apply()
        if self.optimizer is not None:
            self._clean_slots(self.optimizer, self.masks, "none")

    def mask_gradients(self) -> None:
        """Zero the gradients of masked weights."""
        self._keeper.mask_gradients()

    def check(self, where: str) -> None:
        """Raise `InvariantError` if a masked weight, or what the optimizer remembers of it, is not zero.

        The masks of computed weights are not held, and what they say must be so all the same.
        """
        check_weights(self.model, self.masks, self.optimizer, where)

    def versions(self) -> list[int]:
        """Torch's counts of writes to the prunable weights, as they are stored now."""
        return [tensor._version for tensor in self._stored]

    def _weights(self) -> list[Tensor]:
        layers = [layer_of(self.model, name) for name in self.masks]
        return [layer.values if isinstance(layer, SparseLayer) else layer.weight for layer in layers]

    def _held(self) -> dict[str, Tensor]:
        return {name: mask for name, mask in self.masks.items() if name not in self.reparametrised}

    def _is_sparse(self, name: str) -> bool:
        return isinstance(layer_of(self.model, name), SparseLayer)

    def _clean_slots(self, optimizer: Optimizer, old: Mapping[str, Tensor], reset: str) -> None:
        for name, mask in self._held().items():
            if self._is_sparse(name):
                continue  # it remembers nothing of what is outside its pattern, and new ones begin at 0
            keep = mask & (mask == old[name]) if reset == "changed" else mask
            if not bool(keep.all()):
                keep_slots(optimizer, layer_of(self.model, name).weight, keep)
        if reset == "all":
            forget(optimizer)
