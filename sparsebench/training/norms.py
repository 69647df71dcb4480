"""Batch-norm statistics made anew after weights were pruned in one shot: the same for every such method.

The statistics of a dense model are wrong for what is left of it; methods that mend them and methods that do not cannot
be compared. CrAM and OBC do it with 100 batches; so does this, over the training set, as a plain mean.
"""

from __future__ import annotations

from itertools import islice

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from sparsebench.pruning.modes import evaluating
from sparsebench.training.batches import epoch_batches
from sparsebench.training.data import Examples

BATCHES = 100


@torch.no_grad()
def reestimate_norms(model: nn.Module, examples: Examples, batch: int, seed: int) -> int:
    """Reset and average the running statistics over at most `BATCHES` batches; how many norms there were.

    Everything else runs as in evaluation, so nothing is drawn and no mode is left changed.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if not norms:
        return 0
    momenta = [norm.momentum for norm in norms]
    with evaluating(model):
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain mean over the batches
            norm.train()
        try:
            for inputs, _ in islice(epoch_batches(examples, batch, seed, epoch=0), BATCHES):
                model(inputs)
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
    return len(norms)
