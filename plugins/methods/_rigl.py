"""RigL: the rigged lottery, which grows where the gradient is largest.

Evci et al., "Rigging the lottery: making all tickets winners", ICML 2020, section 3. Its update takes the place of
the optimizer's step, as in algorithm 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sparsebench.builtin.methods._dynamic import Dynamic
from sparsebench.plugin import Context, Event, Update


class RigL(Dynamic):
    """Asks for the gradients of all weights at the steps that have an update, and for no others."""

    name = "rigl"
    moment = Event.GRADS_READY

    def wants_dense_grads(self, ctx: Context) -> bool:
        """Whether this step has an update."""
        return bool(self.counts(ctx.step, ctx))

    def growth(self, name: str, ctx: Context) -> Tensor:
        """The size of the loss's gradient; weight decay has no part in it, where weights are 0."""
        gradient = ctx.gradients(name)
        return torch.zeros(ctx.masks[name].shape) if gradient is None else gradient.abs()

    def on_event(self, event: Event, ctx: Context) -> Update | None:
        """An update instead of the optimizer's step."""
        update = super().on_event(event, ctx)
        if update is not None:
            ctx.skip_step()
        return update
