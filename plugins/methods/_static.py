"""A random mask before training, never changed."""

from __future__ import annotations

from sparsebench.builtin.methods._random import random_scores
from sparsebench.plugin import Context, Update


class Static:
    """Keeps a uniformly random set of weights, and trains it."""

    def setup(self, ctx: Context) -> Update:
        """Random masks."""
        return Update(masks=ctx.select(random_scores(ctx)))
