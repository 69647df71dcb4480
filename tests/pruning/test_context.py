"""What a method gets done by its context: two closures a step, rounds from a snapshot, weights that are computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparsebench.errors import InvariantError, UsageError
from sparsebench.pruning.context import Context
from sparsebench.pruning.contract import Event, Update
from sparsebench.pruning.host import Host
from sparsebench.pruning.kernels import Kernels
from sparsebench.training.data import Splits
from sparsebench.training.loop import train
from sparsebench.training.recipe import Recipe

PLAIN = Recipe(epochs=2, batch=32, lr=0.02, momentum=0.0, weight_decay=0.0)


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Bit for bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


class TwoClosures:
    """The gradient of the weights plus that of the weights times `factor`."""

    needs = frozenset({"closure"})

    def __init__(self, factor: float, puts_back: bool = True) -> None:
        self.factor, self.puts_back = factor, puts_back

    def setup(self, ctx: Context) -> Update:
        return Update(masks=ctx.select({name: weight.abs() for name, weight in ctx.prunable.items()}))

    def step(self, closure: Callable[[], float], ctx: Context) -> None:
        closure()
        first = {name: p.grad.clone() for name, p in ctx.model.named_parameters() if p.grad is not None}
        before = ctx.state()
        with ctx.perturbed({name: weight * self.factor for name, weight in ctx.prunable.items()}):
            assert same(before, ctx.state()) == (self.factor == 1)
            closure()
        assert same(before, ctx.state())  # weights, and the statistics that the second closure moved
        for name, parameter in ctx.model.named_parameters():
            assert parameter.grad is not None
            parameter.grad += first[name]
            if not self.puts_back:
                parameter.data.mul_(0.5)


def without_dropout(net: Callable[..., nn.Module]) -> nn.Module:
    model = net()
    model.get_submodule("drop").p = 0.0  # type: ignore[assignment]
    return model


@pytest.mark.parametrize("kernels", [False, True])
def test_two_closures_without_a_perturbation_are_sgd_on_twice_the_loss(
    kernels: bool, net: Callable[..., nn.Module], host_of: Callable[..., Host], images: Splits
) -> None:
    hosts = []
    for factor, rate in ((1.0, 0.02), (0.0, 0.02), (None, 0.04)):
        method: Any = TwoClosures(1.0 if factor is None else factor)
        method.needs = frozenset() if factor is None else method.needs
        chosen = Kernels("cython", images.train.inputs[:32]) if kernels else None
        host = host_of(method, 0.7, model=without_dropout(net), kernels=chosen)
        train(host.model, images, Recipe(epochs=2, batch=32, lr=rate, momentum=0.0, weight_decay=0.0), host=host)
        hosts.append(host)
    twice, perturbed, plain = (host.state() for host in hosts)
    assert same(twice, plain)
    assert not same(perturbed, plain)


def test_a_step_that_leaves_weights_changed_is_caught(host_of: Callable[..., Host], images: Splits) -> None:
    host = host_of(TwoClosures(1.0, puts_back=False))
    with pytest.raises(InvariantError, match=r"left conv\.weight changed; see ctx\.perturbed") as error:
        train(host.model, images, PLAIN, host=host)
    assert error.value.invariant == "untouched"


def test_perturbed_puts_weights_back_after_an_error(host_of: Callable[..., Host]) -> None:
    host = host_of(TwoClosures(1.0))
    before = host.state()
    with pytest.raises(RuntimeError, match="in between"), host.ctx.perturbed({"fc1.weight": torch.zeros(16, 64)}):
        assert not bool(host.state()["fc1.weight"].any())
        raise RuntimeError("in between")
    assert same(before, host.state())


class Lottery:
    """Snapshot at step `at` of round 0; before each other round a fifth of what is left is pruned, and restored."""

    needs = frozenset({"rounds"})

    def __init__(self, at: int = 0, event: Event = Event.STEP_BEGIN, count: int = 3, **restore: bool) -> None:
        self.at, self.event, self.count, self.restore = at, event, count, restore
        self.log: list[tuple[int, int, int]] = []
        self.survivors: list[bool] = []

    def rounds(self, ctx: Context) -> int:
        return self.count

    def on_event(self, event: Event, ctx: Context) -> Update | None:
        if event is self.event and ctx.round == 0 and ctx.step == self.at and "start" not in ctx.snapshots:
            ctx.snapshot("start")
        if event is Event.EPOCH_BEGIN and ctx.round > 0 and len(self.survivors) < ctx.round:
            start = ctx.snapshot_state("start")
            self.survivors.append(
                all(torch.equal(w, start[name] * ctx.masks[name]) for name, w in ctx.prunable.items())
            )
        if event is Event.STEP_BEGIN:
            self.log.append((ctx.round, ctx.epoch, ctx.step))
        if event is not Event.ROUND_BEGIN:
            return None
        ctx.restore("start", **self.restore)
        scores = {name: torch.where(ctx.masks[name], w.abs(), -1.0) for name, w in ctx.prunable.items()}
        sparsity = 1 - 0.8**ctx.round
        return Update(masks=ctx.select(scores, sparsity), sparsity=sparsity)


ROUNDS = Recipe(epochs=2, batch=32, lr=0.05)  # 3 steps an epoch
FINAL = 1 - 0.8**2


def test_rounds_begin_anew_from_the_snapshot(host_of: Callable[..., Host], images: Splits) -> None:
    method = Lottery()
    host = host_of(method, FINAL)
    result = train(host.model, images, ROUNDS, host=host)
    assert method.survivors == [True, True]
    assert method.log == [(which, step // 3, step) for which in range(3) for step in range(6)]
    assert result.steps == 18
    assert [round(mark.sparsity, 2) for mark in result.marks] == [0, 0, 0.2, 0.2, 0.36, 0.36]


@pytest.mark.parametrize(("at", "event"), [(2, Event.STEP_BEGIN), (2, Event.STEP_END), (3, Event.STEP_END)])
def test_a_snapshot_in_the_midst_rewinds_the_schedule_to_there(
    at: int, event: Event, host_of: Callable[..., Host], images: Splits
) -> None:
    method = Lottery(at, event, count=2)
    host = host_of(method, 0.2)
    train(host.model, images, ROUNDS, host=host)
    assert method.survivors == [True]
    assert method.log[6:] == [(1, step // 3, step) for step in range(at, 6)]


def test_the_end_of_a_step_is_the_beginning_of_the_next(host_of: Callable[..., Host], images: Splits) -> None:
    states = []
    for event in (Event.STEP_BEGIN, Event.STEP_END):
        host = host_of(Lottery(2, event, count=2), 0.2)
        train(host.model, images, ROUNDS, host=host)
        states.append(host.state())
    assert same(*states)


def test_weights_and_schedule_are_rewound_apart(host_of: Callable[..., Host], images: Splits) -> None:
    rate, weights = Lottery(2, count=2, weights=False), Lottery(2, count=2, schedule=False)
    for method in (rate, weights):
        host = host_of(method, 0.2)
        train(host.model, images, ROUNDS, host=host)
    assert (rate.survivors, weights.survivors) == ([False], [True])
    assert [step for which, _, step in rate.log if which == 1] == [2, 3, 4, 5]
    assert [step for which, _, step in weights.log if which == 1] == [0, 1, 2, 3, 4, 5]


def test_what_snapshots_cannot_do(host_of: Callable[..., Host], images: Splits) -> None:
    class Early(Lottery):
        def setup(self, ctx: Context) -> None:
            ctx.snapshot()

    class Back(Lottery):
        def on_event(self, event: Event, ctx: Context) -> None:
            if event is Event.STEP_BEGIN and ctx.step == 1:
                ctx.snapshot()
            if event is Event.STEP_BEGIN and ctx.step == 2:
                ctx.restore()

    for method, message in ((Lottery(at=100), "no snapshot is named 'start'"), (Back(), "step 2.*between epochs")):
        host = host_of(method)
        with pytest.raises(UsageError, match=message):
            train(host.model, images, ROUNDS, host=host)
    with pytest.raises(UsageError, match="outside of a training; use on_event"):
        host_of(Early()).begin()
    with pytest.raises(UsageError, match="0 rounds"):
        host_of(Lottery(count=0)).begin()


class SoftThreshold(nn.Module):
    """sign(w)·relu(|w| - sigmoid(threshold))."""

    def __init__(self) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor(-3.5))

    def forward(self, weight: Tensor) -> Tensor:
        return weight.sign() * torch.relu(weight.abs() - self.threshold.sigmoid())


class Thresholds:
    needs = frozenset({"reparametrise", "own_budget"})

    def setup(self, ctx: Context) -> None:
        self.functions = {name: SoftThreshold() for name in ctx.prunable}
        for name, function in self.functions.items():
            ctx.reparametrise(name, function)


def test_computed_weights_are_trained_and_exported_as_what_they_compute(
    net: Callable[..., nn.Module], host_of: Callable[..., Host], images: Splits
) -> None:
    host = host_of(Thresholds(), model=net())
    train(host.model, images, Recipe(epochs=3, batch=32, lr=0.05), host=host)
    trained = {id(p) for group in host.optimizer.param_groups for p in group["params"]}  # type: ignore[union-attr]
    state = host.export()["sparse"]
    assert set(state) == set(net().state_dict())
    for name, function in host.method.functions.items():
        assert id(function.threshold) in trained
        assert float(function.threshold.detach()) != -3.5
        module = host.model.get_submodule(name.removesuffix(".weight"))
        original = module.parametrizations["weight"].original.detach()  # type: ignore[union-attr,index]
        expected = original.sign() * torch.relu(original.abs() - function.threshold.detach().sigmoid())
        assert torch.equal(state[name], expected)
        assert 0 < int(state[name].count_nonzero()) < state[name].numel()
    dense = net(1)
    dense.load_state_dict(state)
    assert torch.equal(dense.eval()(images.test.inputs), host.model.eval()(images.test.inputs))


def test_gradients_are_complete_and_the_place_is_known(host_of: Callable[..., Host], images: Splits) -> None:
    seen: list[int] = []

    class Looks(TwoClosures):
        needs = frozenset()

        def on_event(self, event: Event, ctx: Context) -> None:
            if event is Event.GRADS_READY:
                gradient = ctx.gradients("fc1.weight")
                assert gradient is not None
                seen.append(int(gradient[~ctx.masks["fc1.weight"]].count_nonzero()))
            elif event is Event.EPOCH_BEGIN and ctx.epoch == 0:
                assert ctx.gradients("fc1.weight") is None
                assert ctx.optimizer_slots("fc1.weight") == {}

    host = host_of(Looks(1.0), 0.7)
    train(host.model, images, PLAIN, host=host)
    assert len(seen) == 6
    assert min(seen) > 0


def test_what_a_context_refuses(host_of: Callable[..., Host]) -> None:
    ctx = host_of(Lottery()).ctx
    with pytest.raises(KeyError):
        ctx.prunable["fc1.bias"]
    for sparsity in (1.0, -0.5, float("nan")):
        with pytest.raises(UsageError, match="sparsity"):
            ctx.budgets(sparsity)
    assert ctx.budget("fc2.weight") == 24
    assert ctx.budget("fc2.weight", 0.75) == 12
    assert ctx.budgets(0.75) is ctx.budgets(0.75)
