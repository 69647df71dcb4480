"""Random scores of each layer, from a seed of its own, so that excluding one layer changes no other."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from sparsebench.plugin import Calibration, Context, Update


def random_scores(ctx: Context) -> Mapping[str, Tensor]:
    """A permutation for every layer that depends on the case's seed, the layer's name and its shape alone."""
    scores = {}
    for name, weight in ctx.prunable.items():
        digest = hashlib.sha256(f"{ctx.generator.initial_seed()}/{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))
        # A permutation and not uniform numbers: those tie, and ties go to the lower index.
        scores[name] = torch.randperm(weight.numel(), generator=generator).reshape(weight.shape) / weight.numel()
    return scores


class Random:
    """Drops a random set of weights once, after training."""

    def compress(self, calibration: Calibration | None, ctx: Context) -> Update:
        """Random masks."""
        return Update(masks=ctx.select(random_scores(ctx)))
