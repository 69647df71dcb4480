"""Statistics made anew are the plain means over the batches, and nothing else moves."""

from __future__ import annotations

import torch
from torch import nn

from sparsebench.training.batches import epoch_batches
from sparsebench.training.data import Splits
from sparsebench.training.norms import reestimate_norms


def test_statistics_are_means_over_batches_of_what_is_left(blobs: Splits) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 3))
    model[1].running_mean.fill_(7.0)  # of a model that is gone
    model.train()
    state, weights = torch.get_rng_state(), [p.detach().clone() for p in model.parameters()]
    assert reestimate_norms(model, blobs.train, 32, seed=3) == 1
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))
    assert model.training and model[1].training and model[1].momentum == 0.1
    with torch.no_grad():
        outputs = [model[0](inputs) for inputs, _ in epoch_batches(blobs.train, 32, 3, 0)]
    torch.testing.assert_close(model[1].running_mean, torch.stack([out.mean(0) for out in outputs]).mean(0))
    torch.testing.assert_close(model[1].running_var, torch.stack([out.var(0) for out in outputs]).mean(0))
    assert reestimate_norms(nn.Sequential(nn.Linear(8, 3)), blobs.train, 32, seed=3) == 0
