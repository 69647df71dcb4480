"""Batches visit everything once an epoch, in an order that the seed and the epoch alone decide."""

from __future__ import annotations

import pytest
import torch

from sparsebench.errors import UsageError
from sparsebench.training.batches import batches_per_epoch, epoch_batches
from sparsebench.training.data import Examples

TEN = Examples(torch.arange(10.0).unsqueeze(1), torch.arange(10))


def order(seed: int, epoch: int, batch: int = 5) -> list[int]:
    return [label for each in epoch_batches(TEN, batch, seed, epoch) for label in each.labels.tolist()]


def test_every_epoch_visits_everything_in_a_new_order() -> None:
    orders = [order(seed, epoch) for seed in (0, 1) for epoch in range(4)]
    assert all(sorted(each) == list(range(10)) for each in orders)
    assert len({tuple(each) for each in orders}) == 8


def test_an_epoch_needs_no_other_epoch_and_no_global_random_state() -> None:
    expected, state = order(3, 7), torch.get_rng_state()
    torch.rand(5)
    moved = torch.get_rng_state()
    assert order(3, 7) == expected
    assert torch.equal(torch.get_rng_state(), moved)
    torch.set_rng_state(state)


def test_inputs_keep_their_labels() -> None:
    for inputs, labels in epoch_batches(TEN, 3, 0, 0):
        assert inputs.squeeze(1).tolist() == labels.tolist()


@pytest.mark.parametrize(("batch", "sizes"), [(5, [5, 5]), (4, [4, 4]), (10, [10]), (64, [10]), (1, [1] * 10)])
def test_what_is_left_over_is_dropped(batch: int, sizes: list[int]) -> None:
    assert [len(each.labels) for each in epoch_batches(TEN, batch, 0, 0)] == sizes
    assert batches_per_epoch(TEN, batch) == len(sizes)


def test_without_examples_there_are_no_batches() -> None:
    with pytest.raises(UsageError, match="no examples"):
        batches_per_epoch(Examples(torch.zeros(0, 1), torch.zeros(0)), 4)
