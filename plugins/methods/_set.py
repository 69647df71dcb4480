"""SET: sparse evolutionary training, which grows at random.

Mocanu et al., "Scalable training of artificial neural networks with adaptive sparse connectivity inspired by network
science", Nature Communications 2018, algorithm 1; with the intervals and the falling share that RigL compares it with.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sparsebench.builtin.methods._dynamic import Dynamic
from sparsebench.plugin import Context, Event


class SET(Dynamic):
    """Exchanges after the optimizer's step, which is taken as always."""

    name = "set"
    moment = Event.STEP_END

    def growth(self, name: str, ctx: Context) -> Tensor:
        """A random order. A permutation, for uniform numbers tie and ties go to the lower index."""
        shape = ctx.masks[name].shape
        return torch.randperm(shape.numel(), generator=ctx.generator).reshape(shape).double()
