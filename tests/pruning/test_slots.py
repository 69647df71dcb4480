"""What optimizers remember of masked weights stays exactly zero, is forgotten when it is said, and is known by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, NAdam, Optimizer, RMSprop

from sparsebench.errors import InvariantError, UsageError
from sparsebench.pruning.context import Context
from sparsebench.pruning.contract import Event, Update
from sparsebench.pruning.host import Host
from sparsebench.pruning.keeper import MaskKeeper
from sparsebench.pruning.masks import apply_masks
from sparsebench.pruning.slots import forget, keep_slots, slots_of
from sparsebench.training.data import Splits
from sparsebench.training.step import StepRunner

KINDS: dict[str, Callable[..., Optimizer]] = {
    "sgd": partial(SGD, lr=0.1, weight_decay=0.01),
    "momentum": partial(SGD, lr=0.1, momentum=0.9, weight_decay=0.01),
    "dampened": partial(SGD, lr=0.1, momentum=0.9, dampening=0.5, weight_decay=0.01),
    "nesterov": partial(SGD, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": partial(Adam, lr=0.01, weight_decay=0.01),
    "amsgrad": partial(Adam, lr=0.01, amsgrad=True, weight_decay=0.01),
    "adamw": partial(AdamW, lr=0.01, weight_decay=0.1),
}
VARIANTS: dict[str, dict[str, Any]] = {
    "loop": {"foreach": False},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
}


class Changes:
    """Random masks at setup; other ones, of all weights, `when` it says so, with `reset`."""

    def __init__(self, when: int = -1, reset: Any = "none") -> None:
        self.when, self.reset = when, reset

    def setup(self, ctx: Context) -> Update:
        return self._update(ctx)

    def on_event(self, event: Event, ctx: Context) -> Update | None:
        return self._update(ctx) if event is Event.STEP_BEGIN and ctx.step == self.when else None

    def _update(self, ctx: Context) -> Update:
        scores = {name: torch.rand(weight.shape, generator=ctx.generator) for name, weight in ctx.prunable.items()}
        return Update(masks=ctx.select(scores), reset=self.reset)


def run(host: Host, optimizer: Optimizer, splits: Splits, steps: int) -> None:
    """Steps on one batch, with events."""
    host.attach(optimizer)
    step = StepRunner(host.model, optimizer, splits.train, host)
    host.model.train()
    for _ in range(steps):
        step()


def live(optimizer: Optimizer, parameter: Tensor, off: Tensor) -> int:
    """How many values under a mask are not zero: weights and slots."""
    slots = dict(slots_of(optimizer, parameter)).values()
    return sum(int(each[off].count_nonzero()) for each in (parameter.detach(), *slots))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kind", KINDS)
def test_masked_weights_and_slots_stay_zero_through_decay_and_changes(
    kind: str, variant: str, host_of: Callable[..., Host], images: Splits
) -> None:
    host = host_of(Changes(when=3), 0.7)
    host.begin(1, 6)
    optimizer = KINDS[kind](host.model.parameters(), **VARIANTS[variant])
    run(host, optimizer, images, 6)
    for name, mask in host.masks.items():
        weight = host.model.get_parameter(name)
        assert live(optimizer, weight, ~mask) == 0
        assert len(dict(slots_of(optimizer, weight))) == {"sgd": 0, "adam": 2, "adamw": 2, "amsgrad": 3}.get(kind, 1)


def masks_nothing(keeper: MaskKeeper) -> None:
    """The gradient is left as it is."""


@pytest.mark.parametrize("remasks", [False, True])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "sgd"])
def test_without_masked_gradients_weights_live_and_momentum_gathers_under_the_mask(
    kind: str, remasks: bool, host_of: Callable[..., Host], images: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Masking weights after each step, as published code does, hides the one and not the other."""
    monkeypatch.setattr(MaskKeeper, "mask_gradients", masks_nothing)
    host = host_of(Changes(), 0.7)
    host.begin(1, 6)
    optimizer = KINDS[kind](host.model.parameters())
    if remasks:
        optimizer.register_step_post_hook(lambda *_: apply_masks(host.model, host.masks))
    with pytest.raises(InvariantError) as error:
        run(host, optimizer, images, 6)
    assert error.value.invariant == ("slots" if remasks else "weights")


@pytest.mark.parametrize("kind", [RMSprop, NAdam, torch.optim.Adagrad, type("Mine", (SGD,), {})])
def test_an_optimizer_that_is_not_known_is_refused_by_name(kind: Any, host_of: Callable[..., Host]) -> None:
    host = host_of(Changes())
    host.begin()
    with pytest.raises(UsageError, match=f"the optimizer {kind.__name__} is not known here.*use SGD, Adam, AdamW"):
        host.attach(kind(host.model.parameters(), lr=0.1))


def slots_at_change(reset: str, kind: str, host_of: Callable[..., Host], images: Splits) -> dict[str, list[Tensor]]:
    """By layer: (old mask, new mask, slot before, slot after) of a mask update before the fourth step."""
    host = host_of(Changes(when=3, reset=reset), 0.6)
    host.begin(1, 6)
    optimizer = KINDS[kind](host.model.parameters())
    run(host, optimizer, images, 3)
    names = list(host.masks)
    before = {name: [host.masks[name], *host.ctx.optimizer_slots(name).values()] for name in names}
    host.ctx.step = 3
    host.event(Event.STEP_BEGIN)
    found = {}
    for name in names:
        old, slot, *_ = before[name]
        found[name] = [old, host.masks[name], slot, next(iter(host.ctx.optimizer_slots(name).values()))]
    bias = optimizer.state[host.model.get_parameter("fc1.bias")]
    found["bias"] = [next(tensor for key, tensor in bias.items() if key != "step")]
    found["step"] = [bias["step"]] if "step" in bias else []
    return found


@pytest.mark.parametrize("kind", ["momentum", "adam"])
def test_reset_none_forgets_what_was_pruned_alone(kind: str, host_of: Callable[..., Host], images: Splits) -> None:
    found = slots_at_change("none", kind, host_of, images)
    assert bool(found["bias"][0].any())
    for name in ("conv.weight", "fc1.weight", "fc2.weight"):
        _, new, before, after = found[name]
        assert torch.equal(after, before * new)


@pytest.mark.parametrize("kind", ["momentum", "adam"])
def test_reset_changed_forgets_what_changed_its_state(kind: str, host_of: Callable[..., Host], images: Splits) -> None:
    found = slots_at_change("changed", kind, host_of, images)
    assert bool(found["bias"][0].any())
    for name in ("conv.weight", "fc1.weight", "fc2.weight"):
        old, new, before, after = found[name]
        assert torch.equal(after, before * (old & new))


@pytest.mark.parametrize("kind", ["momentum", "adam"])
def test_reset_all_forgets_everything(kind: str, host_of: Callable[..., Host], images: Splits) -> None:
    found = slots_at_change("all", kind, host_of, images)
    assert not bool(found["bias"][0].any())
    assert not any(bool(step.any()) for step in found["step"])
    for name in ("conv.weight", "fc1.weight", "fc2.weight"):
        assert bool(found[name][2].any())
        assert not bool(found[name][3].any())


def test_another_reset_is_an_error(host_of: Callable[..., Host]) -> None:
    with pytest.raises(UsageError, match="reset = 'some'; use none, changed or all"):
        host_of(Changes(reset="some")).begin()


def by_gradients(optimizer: Optimizer) -> None:
    """The published fault: parameters without a gradient are passed over, and after `zero_grad` none has one."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                for _, slot in slots_of(optimizer, parameter):
                    slot.zero_()


def check_forgets(reset: Callable[[Optimizer], None], kinds: Iterable[str]) -> None:
    for kind in kinds:
        model = nn.Linear(4, 3)
        optimizer = KINDS[kind](model.parameters())
        model(torch.ones(2, 4)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        before = sum(int(slot.count_nonzero()) for p in model.parameters() for _, slot in slots_of(optimizer, p))
        reset(optimizer)
        assert before > 0
        assert not any(bool(slot.any()) for p in model.parameters() for _, slot in slots_of(optimizer, p))


def test_forgetting_does_not_look_at_gradients() -> None:
    kinds = [kind for kind in KINDS if kind != "sgd"]
    check_forgets(forget, kinds)
    with pytest.raises(AssertionError):
        check_forgets(by_gradients, kinds)


def test_after_forgetting_adam_begins_anew() -> None:
    """Its first step moves every weight by the learning rate, as the correction of its averages promises."""
    model = nn.Linear(4, 3, bias=False)
    optimizer = Adam(model.parameters(), lr=0.01)
    for count in range(4):
        if count == 3:
            forget(optimizer)
            before = model.weight.detach().clone()
        optimizer.zero_grad()
        model(torch.ones(2, 4)).square().sum().backward()
        optimizer.step()
    torch.testing.assert_close((model.weight.detach() - before).abs(), torch.full((3, 4), 0.01), rtol=1e-4, atol=0)


def test_slots_are_kept_inside_the_mask_alone() -> None:
    weight = nn.Parameter(torch.ones(3))
    optimizer = SGD([weight], 0.1, momentum=0.9)
    assert list(slots_of(optimizer, weight)) == []
    optimizer.state[weight]["momentum_buffer"] = torch.tensor([1.0, 2.0, 3.0])
    keep_slots(optimizer, weight, torch.tensor([True, False, True]))
    assert dict(slots_of(optimizer, weight))["momentum_buffer"].tolist() == [1, 0, 3]
