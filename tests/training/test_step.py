"""A step is exactly SGD on the kept weights, its time adds up, and a loss that is not finite stops it."""

from __future__ import annotations

import time
from itertools import cycle

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsebench.errors import TrainingError
from sparsebench.training.data import Examples, Splits
from sparsebench.training.step import SPLITS, StepRunner


def make(weight_decay: float = 0.0) -> tuple[nn.Linear, torch.optim.SGD, dict[str, Tensor]]:
    torch.manual_seed(0)
    model = nn.Linear(8, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=weight_decay)
    return model, optimizer, {"weight": torch.rand(3, 8) < 0.4}


def by_hand(blobs: Splits, steps: int, mask: Tensor, remask: bool = True) -> Tensor:
    """Momentum SGD on weight·mask, written out; without `remask` momentum and decay revive dropped weights."""
    model, _, _ = make()
    weight, bias = (p.detach().clone() for p in model.parameters())
    weight *= mask
    slots = [torch.zeros_like(weight), torch.zeros_like(bias)]
    for _ in range(steps):
        leaves = [weight.requires_grad_(), bias.requires_grad_()]
        grads = torch.autograd.grad(F.cross_entropy(F.linear(blobs.train.inputs, *leaves), blobs.train.labels), leaves)
        slots = [0.9 * slot + grad for slot, grad in zip(slots, grads, strict=True)]
        weight, bias = ((leaf - 0.1 * slot).detach() for leaf, slot in zip(leaves, slots, strict=True))
        weight = weight * mask if remask else weight
    return weight


def test_ten_masked_steps_equal_sgd_by_hand(blobs: Splits) -> None:
    model, optimizer, masks = make()
    step = StepRunner(model, optimizer, blobs.train, masks)
    assert not bool(model.weight[~masks["weight"]].any())
    for _ in range(10):
        step()
    assert not bool(model.weight[~masks["weight"]].any())
    torch.testing.assert_close(model.weight.detach(), by_hand(blobs, 10, masks["weight"]))
    with pytest.raises(AssertionError):
        torch.testing.assert_close(model.weight.detach(), by_hand(blobs, 10, masks["weight"], remask=False))


def test_time_is_split_and_adds_up(blobs: Splits) -> None:
    model, optimizer, masks = make()

    def slow_batches(seconds: float) -> object:
        for batch in cycle([blobs.train]):
            time.sleep(seconds)
            yield batch

    step = StepRunner(model, optimizer, slow_batches(0.02), masks, after_step=lambda: time.sleep(0.01))
    step()
    started = time.perf_counter_ns()
    step()
    whole = time.perf_counter_ns() - started
    assert tuple(step.splits_ns) == SPLITS
    assert step.splits_ns["data"] > 19e6
    assert step.splits_ns["mask"] > 9e6
    assert 0.7 * whole < sum(step.splits_ns.values()) <= whole
    assert step.steps == 2


def test_one_batch_of_examples_is_used_again_and_again(blobs: Splits) -> None:
    model, optimizer, _ = make()
    step = StepRunner(model, optimizer, Examples(*blobs.train))
    losses = []
    for _ in range(5):
        step()
        losses.append(step.loss)
    assert losses == sorted(losses, reverse=True)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_before_the_weights(blobs: Splits, bad: float) -> None:
    model, optimizer, _ = make()
    before = model.weight.detach().clone()
    inputs = blobs.train.inputs.clone()
    inputs[0, 0] = bad
    step = StepRunner(model, optimizer, Examples(inputs, blobs.train.labels))
    with pytest.raises(TrainingError, match="step 0"):
        step()
    assert torch.equal(model.weight, before)


def test_a_module_with_values_instead_of_weights_needs_no_masks(blobs: Splits) -> None:
    class Csr(nn.Module):
        def __init__(self, dense: nn.Linear, mask: Tensor) -> None:
            super().__init__()
            self.ids = mask.nonzero(as_tuple=True)
            self.values = nn.Parameter(dense.weight.detach()[self.ids])
            self.bias = nn.Parameter(dense.bias.detach().clone())

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, torch.zeros(3, 8).index_put(self.ids, self.values), self.bias)

    dense, optimizer, masks = make()
    sparse = Csr(dense, masks["weight"])
    runners = [
        StepRunner(dense, optimizer, blobs.train, masks),
        StepRunner(sparse, torch.optim.SGD(sparse.parameters(), lr=0.1, momentum=0.9), blobs.train),
    ]
    for runner in runners * 10:
        runner()
    torch.testing.assert_close(dense.weight.detach()[masks["weight"]], sparse.values.detach())
