"""Holds masks over ordinary steps, cheaply: by the gradients, before the optimizer sees them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from sparsebench.pruning.masks import mask_factors


class MaskKeeper:
    """Multiplies by masks as numbers (see `mask_factors`).

    A masked weight is 0 and so is what the optimizer remembers of it: without a gradient the optimizers that the host
    knows leave both exactly 0, weight decay too, and a weight that returns later starts from nothing. So masking
    gradients is all that an ordinary step needs; masking weights instead would leave momentum to revive them, and
    both would take twice the time. What breaks this is found at the end of the epoch, not mended in silence.
    """

    def __init__(self, model: nn.Module, masks: Mapping[str, Tensor]) -> None:
        self._factors = mask_factors(model, masks)
        self.apply()

    @torch.no_grad()
    def apply(self) -> None:
        """Zero the weights that masks drop."""
        for parameter, keep in self._factors:
            parameter.mul_(keep)

    @torch.no_grad()
    def mask_gradients(self) -> None:
        """Zero the gradients of the weights that masks drop."""
        for parameter, keep in self._factors:
            if parameter.grad is not None:
                parameter.grad.mul_(keep)


class FixedMasks:
    """Holds masks that never change, for a training loop: what a `Host` is to a method, without one."""

    def __init__(self, model: nn.Module, masks: Mapping[str, Tensor] | None = None) -> None:
        self._keeper = MaskKeeper(model, masks or {})

    def step_begin(self) -> None:
        """Nothing."""

    def run_step(self, closure: Callable[[], float]) -> None:
        """Forward and backward, once."""
        closure()

    def gradients_ready(self) -> bool:
        """Mask the gradients."""
        self._keeper.mask_gradients()
        return True

    def step_end(self) -> None:
        """Nothing: without a gradient masked weights stay 0."""
