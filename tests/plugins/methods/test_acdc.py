"""AC/DC: dense and fully sparse in turn; what is restored starts at 0 without momentum; ends sparse, with a twin."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise, product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from sparsebench.builtin.methods._acdc import ACDC, Phase
from sparsebench.errors import InvariantError, UsageError
from sparsebench.plugin import nm_mask
from sparsebench.pruning import holding
from sparsebench.pruning.budget import Budget
from sparsebench.pruning.contract import Event, Update
from sparsebench.pruning.host import Host
from sparsebench.pruning.keeper import FixedMasks
from sparsebench.pruning.slots import slots_of
from sparsebench.training.data import Examples
from sparsebench.training.step import StepRunner

ONCE = "acdc@warmup=0.5,last=0,finetune=0.5"  # one compression, no restore


def phases(host: Host, steps: int) -> list[Phase]:
    host.ctx.epochs, host.ctx.steps_per_epoch = 1, steps
    return ACDC.phases(host.ctx)


def test_the_default_is_the_recipe_of_the_paper(host_of: Callable[..., Host]) -> None:
    expected = [Phase(10 + 5 * i, i % 2 == 0) for i in range(14)]  # compressed at 10, restored at 15, …, 75
    assert phases(host_of("acdc"), 100) == [*expected, Phase(85, True)]
    assert phases(host_of("acdc"), 1000) == [Phase(10 * start, kind) for start, kind in [*expected, (85, True)]]


@pytest.mark.parametrize(
    "options",
    ["", "@warmup=0", "@warmup=0,last=0", "@phase=0.5", "@phase=0.01", "@finetune=0.01",
     "@warmup=0.9,last=0,finetune=0.1", "@warmup=0.3,last=0.6,finetune=0.1"],
)  # fmt: skip
def test_phases_take_turns_and_the_last_is_compressed(options: str, host_of: Callable[..., Host]) -> None:
    for steps in [*range(1, 61), 997]:
        host = host_of(f"acdc{options}", 0.9)
        host.begin(1, steps)
        found = phases(host, steps)
        starts = [phase.start for phase in found]
        assert starts == sorted(set(starts))
        assert 0 <= starts[0] <= starts[-1] < steps
        assert [phase.compressed for phase in found] == [i % 2 == 0 for i in range(len(found))]
        assert found[-1].compressed


@pytest.mark.parametrize("allocator", ["global", "uniform", "erk"])
@pytest.mark.parametrize("steps", [1, 2, 7, 40])
def test_the_sparsity_is_zero_or_the_target_and_ends_at_it(
    steps: int, allocator: str, host_of: Callable[..., Host], drive: Callable[..., Host]
) -> None:
    host, trace = host_of("acdc", 0.8, allocator), []
    drive(host, steps, look=lambda: trace.append(host.sparsity_now))
    target = 1 - host.ctx.budgets().total / sum(mask.numel() for mask in host.masks.values())
    assert set(trace) <= {0.0, target}
    assert trace[-1] == host.sparsity_now == target
    planned = phases(host, steps)
    kinds = [next((p.compressed for p in reversed(planned) if p.start <= step), False) for step in range(steps)]
    assert [sparsity > 0 for sparsity in trace] == kinds
    assert host.updates == len(planned)


class Straddles(ACDC):
    """Groups over the flattened weight, as in published code: they mix the positions of a window."""

    def on_event(self, event: Event, ctx: Any) -> Update | None:
        update = super().on_event(event, ctx)
        if update is None or update.masks is None or update.sparsity == 0:
            return update
        scores = {name: weight.abs().reshape(-1, 4) for name, weight in ctx.prunable.items()}
        return Update(masks={name: nm_mask(s, 2, 4).reshape(ctx.masks[name].shape) for name, s in scores.items()})


def convolutions() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Unflatten(1, (4, 1, 2)), nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 4, (1, 2)), nn.Flatten(), nn.Linear(4, 3),
    )  # fmt: skip


def check_groups(host: Host, drive: Callable[..., Host]) -> None:
    """Compressed: 2 of each 4 neighbours along the input channels, at every position of the window by itself."""
    trace: list[float] = []

    def look() -> None:
        trace.append(host.sparsity_now)
        if host.sparsity_now == 0:
            return
        for name, weight in host.ctx.prunable.items():
            mask = host.masks[name].numpy()
            outputs, inputs, *window = mask.shape
            for at in product(range(outputs), range(0, inputs, 4), *map(range, window)):
                group = [(at[0], at[1] + i, *at[2:]) for i in range(4)]
                assert sum(bool(mask[place]) for place in group) == 2, (name, at)
            assert not bool(weight[~host.masks[name]].any())

    drive(host, 40, look=look)
    assert set(trace) == {0.0, 0.5}
    assert sum(a != b for a, b in pairwise(trace)) == len(phases(host, 40)) - (trace[0] == 0.5)
    assert trace[-1] == host.sparsity_now == 0.5
    exports = host.export()
    for name, mask in host.masks.items():
        assert torch.equal(exports["sparse"][name] != 0, mask)
        assert bool(exports["dense"][name][~mask].any())


@pytest.mark.parametrize("images", [False, True])
def test_two_of_four(images: bool, host_of: Callable[..., Host], drive: Callable[..., Host]) -> None:
    def make(**method: Any) -> Host:
        return host_of("acdc", 0.5, "nm:2:4", model=convolutions() if images else None, **method)

    check_groups(make(), drive)
    if images:  # without a window the two are the same
        with pytest.raises(InvariantError, match="does not keep 2 of every 4 along its input channels"):
            check_groups(make(method=Straddles()), drive)
        host = make(method=Straddles())
        host.ctx._budgets[0.5] = Budget(0.5, {name: mask.numel() // 2 for name, mask in host.masks.items()}, 0)
        with pytest.raises(AssertionError, match=r"1\.weight"):
            check_groups(host, drive)


def momenta(host: Host) -> list[Tensor]:
    assert host.optimizer is not None
    return [slot for p in host.model.parameters() for _, slot in slots_of(host.optimizer, p)]


def check_restores(host: Host, drive: Callable[..., Host]) -> None:
    """At every restore what was masked is 0, all masks are full, and the momentum of all parameters is zero."""
    restores = {phase.start for phase in phases(host, 40) if not phase.compressed}
    last: dict[str, Tensor] = {}
    moving: list[bool] = []

    def look() -> None:
        if host.ctx.step in restores:
            for name, mask in host.masks.items():
                assert bool(mask.all())
                assert not bool(host.ctx.prunable[name][~last[name]].any())
                assert bool(host.ctx.prunable[name][last[name]].all())
            assert len(momenta(host)) == len(list(host.model.parameters()))
            assert not any(bool(slot.any()) for slot in momenta(host))
        elif host.ctx.step > 0:
            moving.append(all(bool(slot.any()) for slot in momenta(host)))
        last.update(host.masks)

    drive(host, 40, look=look)
    assert len(restores) == 7
    assert moving == [True] * (39 - len(restores))


def forget_by_gradients(optimizer: Optimizer) -> None:
    """The published reset: after `zero_grad` no parameter has a gradient, so it does nothing."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                for _, slot in slots_of(optimizer, parameter):
                    slot.zero_()


def test_what_is_restored_starts_from_nothing(
    host_of: Callable[..., Host], drive: Callable[..., Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    check_restores(host_of("acdc"), drive)
    monkeypatch.setattr(holding, "forget", forget_by_gradients)
    with pytest.raises(AssertionError):
        check_restores(host_of("acdc"), drive)


def test_a_restored_weight_moves_at_once(host_of: Callable[..., Host], drive: Callable[..., Host]) -> None:
    host, alive = host_of("acdc"), []
    drive(host, 40, look=lambda: alive.append(int(host.ctx.prunable["3.weight"].count_nonzero())))
    restored = next(phase.start for phase in phases(host, 40) if not phase.compressed)
    assert alive[restored - 1] == alive[restored] < 150 < alive[restored + 1]


def test_exports_a_sparse_and_a_dense_model(host_of: Callable[..., Host], drive: Callable[..., Host]) -> None:
    host = host_of("acdc")
    states: list[dict[str, Tensor]] = []
    original = host.step_end

    def step_end() -> None:
        original()
        states.append(host.state())

    host.step_end = step_end  # type: ignore[method-assign]
    drive(host, 40)
    models = host.export()
    assert set(models) == {"sparse", "dense"}
    assert models["sparse"].keys() == models["dense"].keys()
    for name, mask in host.masks.items():
        assert int(models["sparse"][name].count_nonzero()) == int(mask.sum())
        assert int(models["dense"][name].count_nonzero()) > 1.5 * int(mask.sum())
    last = phases(host, 40)[-1].start
    assert all(torch.equal(models["dense"][name], states[last - 1][name]) for name in states[-1])
    assert all(torch.equal(models["sparse"][name], states[-1][name]) for name in states[-1])


def test_compressed_once_it_is_one_shot_and_training_under_fixed_masks(
    host_of: Callable[..., Host],
    drive: Callable[..., Host],
    net: Callable[..., nn.Sequential],
    batch: Callable[[int], Examples],
) -> None:
    """Bit for bit; done by hand beside it, with momentum kept where weights are kept."""
    host = drive(host_of(ONCE, 0.7), 20)
    assert host.updates == 1

    def by_hand(keeps_momentum: bool) -> nn.Sequential:
        model = net()
        torch.manual_seed(1)
        optimizer = SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=0.01)
        step = StepRunner(model, optimizer, iter([batch(at) for at in range(20)]), FixedMasks(model))
        for _ in range(10):
            step()
        shot = host_of("magnitude", 0.7, model=model)
        shot.begin()
        shot.finish()
        for name, mask in shot.masks.items():
            optimizer.state[model.get_parameter(name)]["momentum_buffer"].mul_(mask if keeps_momentum else 0)
        step.holder = FixedMasks(model, shot.masks)
        for _ in range(10):
            step()
        return model

    right, wrong = by_hand(keeps_momentum=True).state_dict(), by_hand(keeps_momentum=False).state_dict()
    assert all(torch.equal(tensor, right[name]) for name, tensor in host.state().items())
    assert not all(torch.equal(tensor, wrong[name]) for name, tensor in host.state().items())


@pytest.mark.parametrize("options", ["warmup=0.95,last=0,finetune=0.05", "warmup=0.3,last=0.65,finetune=0.05"])
def test_without_a_compression_it_is_sgd(
    options: str, host_of: Callable[..., Host], drive: Callable[..., Host]
) -> None:
    """Bit for bit, up to the last step's compression; the twin is what was there before it."""
    dense = host_of("dense", 0.0)
    states: list[dict[str, Tensor]] = []
    original = dense.step_end

    def step_end() -> None:
        original()
        states.append(dense.state())

    dense.step_end = step_end  # type: ignore[method-assign]
    drive(dense, 20)
    host = drive(host_of(f"acdc@{options}"), 20)
    assert host.updates == 1
    twin = host.export()["dense"]
    assert all(torch.equal(tensor, twin[name]) for name, tensor in states[18].items())
    assert not all(torch.equal(tensor, twin[name]) for name, tensor in states[17].items())


def test_a_last_phase_that_begins_compressed_is_one_phase(host_of: Callable[..., Host]) -> None:
    """Without a dense phase before it there is nothing to compress anew."""
    assert phases(host_of("acdc@last=0"), 100)[-2:] == [Phase(75, False), Phase(80, True)]


BAD = ["warmup=-0.1", "last=-0.1", "finetune=0", "phase=0", "phase=-1", "warmup=0.8", "warmup=nan", "last=nan",
       "finetune=nan", "phase=nan", "finetune=1.1"]  # fmt: skip


@pytest.mark.parametrize("options", BAD)
def test_phases_that_cannot_be_are_an_error_before_training(options: str, host_of: Callable[..., Host]) -> None:
    with pytest.raises(UsageError, match="acdc: warmup"):
        host_of(f"acdc@{options}").begin(1, 10)


def test_it_forgets_at_restores_alone(host_of: Callable[..., Host]) -> None:
    """Momentum goes on through a compression, where weights are kept."""
    host = host_of(ONCE)
    host.begin(1, 10)
    optimizer = SGD(host.model.parameters(), 0.05, momentum=0.9)
    for parameter in host.model.parameters():
        optimizer.state[parameter] = {"momentum_buffer": torch.ones_like(parameter)}
    host.attach(optimizer)
    host.services.take = dict  # type: ignore[method-assign]
    host.ctx.step = 5
    host.event(Event.STEP_BEGIN)
    assert host.updates == 1
    for name, mask in host.masks.items():
        assert torch.equal(host.ctx.optimizer_slots(name)["momentum_buffer"], mask.float())
