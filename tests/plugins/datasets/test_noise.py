"""Noise: any shape, the same at every call."""

from __future__ import annotations

import torch

from sparsebench.builtin.datasets._noise import load


def test_takes_the_shape_of_the_model_and_repeats_itself() -> None:
    splits = load(shape=(3, 8, 8))
    assert splits.train.inputs.shape[1:] == (3, 8, 8)
    assert all(torch.equal(a.inputs, b.inputs) for a, b in zip(splits[:3], load(shape=(3, 8, 8))[:3], strict=True))
    assert not torch.equal(splits.validation.inputs, splits.test.inputs)
    assert splits.train.labels.bincount().numel() == 10
    assert abs(float(splits.train.inputs.std()) - 1) < 0.02


def test_leaves_the_global_random_state_alone() -> None:
    state = torch.get_rng_state()
    load(shape=(4,))
    assert torch.equal(state, torch.get_rng_state())
