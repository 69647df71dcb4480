"""A step is exactly SGD on the kept weights, its time adds up, and a loss that is not finite stops it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsebench.errors import TrainingError
from sparsebench.pruning.host import Host
from sparsebench.pruning.keeper import FixedMasks
from sparsebench.registry import load_registry
from sparsebench.training import step as step_module
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
    step = StepRunner(model, optimizer, blobs.train, FixedMasks(model, masks))
    assert not bool(model.weight[~masks["weight"]].any())
    for _ in range(10):
        step()
    assert not bool(model.weight[~masks["weight"]].any())
    torch.testing.assert_close(model.weight.detach(), by_hand(blobs, 10, masks["weight"]))
    with pytest.raises(AssertionError):
        torch.testing.assert_close(model.weight.detach(), by_hand(blobs, 10, masks["weight"], remask=False))


class Clock:
    """Stands still but for what the parts of a step are said to take."""

    def __init__(self) -> None:
        self.now = 0

    def perf_counter_ns(self) -> int:
        return self.now

    def after(self, cost: int, function: Callable[..., Any]) -> Callable[..., Any]:
        def slow(*args: Any, **kwargs: Any) -> Any:
            self.now += cost
            return function(*args, **kwargs)

        return slow


def test_time_is_split_and_adds_up(blobs: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    model, optimizer, masks = make()
    clock, holder = Clock(), FixedMasks(model, masks)
    monkeypatch.setattr(step_module, "time", clock)

    def batches() -> Iterator[Examples]:
        while True:
            clock.now += 10000
            yield blobs.train

    for name, cost in {"step_begin": 1, "gradients_ready": 2, "step_end": 4}.items():
        monkeypatch.setattr(holder, name, clock.after(cost, getattr(holder, name)))
    run_step = holder.run_step
    monkeypatch.setattr(holder, "run_step", lambda closure: clock.after(8, run_step)(clock.after(16, closure)))
    monkeypatch.setattr(optimizer, "step", clock.after(1000, optimizer.step))
    monkeypatch.setattr(optimizer, "zero_grad", clock.after(100000, optimizer.zero_grad))  # before the backward
    model.register_forward_pre_hook(clock.after(50, lambda *_: None))
    step = StepRunner(model, optimizer, batches(), holder)
    for count in range(2):
        step()
        assert tuple(step.splits_ns) == SPLITS
        assert step.splits_ns == {"data": 10000, "forward": 50, "backward": 100000, "optimizer": 1000, "mask": 31}
        assert sum(step.splits_ns.values()) * (count + 1) == clock.now
    assert step.steps == 2
    with step.counted("mask"):
        clock.now += 7
    assert step.splits_ns == {**dict.fromkeys(SPLITS, 0), "mask": 7}


def test_one_batch_of_examples_is_used_again_and_again(blobs: Splits) -> None:
    model, optimizer, _ = make()
    step = StepRunner(model, optimizer, Examples(*blobs.train), FixedMasks(model))
    losses = []
    for _ in range(5):
        step()
        losses.append(step.loss)
    assert losses == sorted(losses, reverse=True)


class Twice(FixedMasks):
    """Runs the closure at the weights, and then at others."""

    def __init__(self, model: nn.Linear) -> None:
        super().__init__(model)
        self.weight = model.weight.data

    def run_step(self, closure: Callable[[], float]) -> None:
        self.told = [closure()]
        self.weight.mul_(-2)
        self.told.append(closure())
        self.weight.div_(-2)


def tells_the_loss_at_the_weights(make_step: Callable[..., StepRunner], blobs: Splits) -> None:
    """In every step that of the first pass; the method hears of each pass its own."""
    model, optimizer, _ = make()
    holder = Twice(model)
    step = make_step(model, optimizer, blobs.train, holder)
    for _ in range(3):
        expected = F.cross_entropy(model(blobs.train.inputs), blobs.train.labels).item()
        step()
        assert step.loss == holder.told[0] == expected
        assert holder.told[1] != expected


class OfTheLast(StepRunner):
    def _closure(self, batch: Examples) -> float:
        self.loss = super()._closure(batch)
        return self.loss


class OfTheFirstStep(StepRunner):
    """Does not begin anew."""

    def __call__(self) -> None:
        before = self.loss
        super().__call__()
        self.loss = before if before == before else self.loss


def test_the_loss_of_a_step_is_that_of_its_first_pass(blobs: Splits) -> None:
    tells_the_loss_at_the_weights(StepRunner, blobs)
    for broken in (OfTheLast, OfTheFirstStep):
        with pytest.raises(AssertionError):
            tells_the_loss_at_the_weights(broken, blobs)


def test_so_it_is_under_cram(blobs: Splits) -> None:
    """Its second pass is at perturbed and compressed weights, where the loss is another."""
    registry = load_registry()
    entry, parameters = registry.find("methods", "cram@rho=1,sparsities=0.9")
    model, optimizer, _ = make()
    host = Host(
        nn.Sequential(model), entry.load()(), registry.create("allocators", "global"), sparsity=0.5,
        needs=entry.spec.needs, parameters=parameters,
    )  # fmt: skip
    host.begin(1, 5)
    host.attach(optimizer)
    step = StepRunner(host.model, optimizer, blobs.train, host)
    for _ in range(5):
        expected = F.cross_entropy(model(blobs.train.inputs), blobs.train.labels).item()
        step()
        assert step.loss == expected


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_before_the_weights(blobs: Splits, bad: float) -> None:
    model, optimizer, _ = make()
    before = model.weight.detach().clone()
    inputs = blobs.train.inputs.clone()
    inputs[0, 0] = bad
    step = StepRunner(model, optimizer, Examples(inputs, blobs.train.labels), FixedMasks(model))
    with pytest.raises(TrainingError, match="at step 0: the inputs are not finite"):
        step()
    assert torch.equal(model.weight, before)


def test_a_layer_that_explodes_is_named_with_its_step(blobs: Splits) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 3))
    step = StepRunner(model, torch.optim.SGD(model.parameters(), 0.1), blobs.train, FixedMasks(model))
    step()
    with torch.no_grad():
        model[0].weight.fill_(3e38)
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf) at step 1: the output of 0 is not finite"):
        step()


def test_a_holder_may_leave_the_optimizer_out(blobs: Splits) -> None:
    class Skips(FixedMasks):
        def gradients_ready(self) -> bool:
            return False

    model, optimizer, _ = make()
    before = model.weight.detach().clone()
    StepRunner(model, optimizer, blobs.train, Skips(model))()
    assert torch.equal(model.weight, before)
    assert model.weight.grad is not None


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
        StepRunner(dense, optimizer, blobs.train, FixedMasks(dense, masks)),
        StepRunner(sparse, torch.optim.SGD(sparse.parameters(), lr=0.1, momentum=0.9), blobs.train, FixedMasks(sparse)),
    ]
    for runner in runners * 10:
        runner()
    torch.testing.assert_close(dense.weight.detach()[masks["weight"]], sparse.values.detach())
