"""A random mask of each layer, from a seed of its own, so that excluding one layer changes no other."""

from __future__ import annotations

import hashlib

import torch

from sparsebench.plugin import Context, Update, top_k_mask


class Static:
    """Keeps a uniformly random set of weights in every layer."""

    def setup(self, ctx: Context) -> Update:
        """Masks that depend on the case's seed, the layer's name and its shape alone."""
        masks = {}
        for name, parameter in ctx.prunable.items():
            digest = hashlib.sha256(f"{ctx.generator.initial_seed()}/{name}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))
            # A permutation and not uniform numbers: those tie, and ties go to the lower index.
            order = torch.randperm(parameter.numel(), generator=generator).reshape(parameter.shape)
            masks[name] = top_k_mask(order, ctx.budget(name))
        return Update(masks=masks)
