"""Layers go to sparse kernels and back with values, gradients and slots bit for bit, and train as masked ones do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparsebench.builtin.backends._cython import CythonBackend
from sparsebench.errors import InvariantError, UsageError
from sparsebench.nn import sparse_layers
from sparsebench.pruning.context import Context
from sparsebench.pruning.contract import Event, Update
from sparsebench.pruning.host import Host
from sparsebench.pruning.invariants import check_weights
from sparsebench.pruning.kernels import Kernels
from sparsebench.training.data import Splits
from sparsebench.training.loop import train
from sparsebench.training.recipe import Recipe
from sparsebench.training.step import StepRunner

ALL = {"conv", "fc1", "fc2"}
RECIPE = Recipe(epochs=2, batch=32, lr=0.05, weight_decay=0.01)


class Follows:
    """Sparsity by step, over magnitudes or over random scores; dense gradients at the steps of `wants`."""

    def __init__(self, sparsities: dict[int, float], random: bool = False, wants: tuple[int, ...] = ()) -> None:
        self.sparsities, self.random, self.wants = sparsities, random, wants
        self.needs = frozenset({"dense_grads"} if wants else ())
        self.seen: dict[int, tuple[set[str], int]] = {}

    def on_event(self, event: Event, ctx: Context) -> Update | None:
        if event is Event.GRADS_READY:
            name = list(ctx.prunable)[1]
            gradient = ctx.gradients(name)
            assert gradient is not None
            outside = int(gradient[~ctx.masks[name]].count_nonzero())
            self.seen[ctx.step] = (set(sparse_layers(ctx.model)), outside)
        if event is not Event.STEP_BEGIN or ctx.step not in self.sparsities:
            return None
        sparsity = self.sparsities[ctx.step]
        scores = {name: weight.abs() for name, weight in ctx.prunable.items()}
        if self.random:
            scores = {name: torch.rand(s.shape, generator=ctx.generator) for name, s in scores.items()}
        return Update(masks=ctx.select(scores, sparsity), sparsity=sparsity)

    def wants_dense_grads(self, ctx: Context) -> bool:
        return ctx.step in self.wants


def kernels_for(images: Splits, **options: Any) -> Kernels:
    return Kernels(**{"backend": "cython", "example_input": images.train.inputs[:32], **options})


def started(host: Host, images: Splits, kind: str = "sgd") -> StepRunner:
    """A host in training, before its first step."""
    host.begin(1, 10)
    optimizer: Any = {
        "sgd": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=0.01),
        # with a smaller eps rounding would decide whole steps where gradients vanish
        "adam": lambda p: torch.optim.Adam(p, 0.01, amsgrad=True, eps=1e-3),
    }[kind](host.model.parameters())
    host.attach(optimizer)
    host.model.train()
    return StepRunner(host.model, optimizer, images.train, host)


def everything(host: Host) -> dict[str, Tensor]:
    """Dense weights, buffers and slots by name, of a model whose layers are dense."""
    found = dict(host.state())
    for name in host.masks:
        found |= {f"{slot} of {name}": tensor for slot, tensor in host.ctx.optimizer_slots(name).items()}
    return found


@pytest.mark.parametrize("kind", ["sgd", "adam"])
@pytest.mark.parametrize("backend", ["cython", "cpp"])
def test_there_and_back_nothing_changes(backend: str, kind: str, host_of: Callable[..., Host], images: Splits) -> None:
    plain = host_of(Follows({0: 0.7}), 0.7)
    step = started(plain, images, kind)
    for _ in range(3):
        step()
    before, kernels = everything(plain), kernels_for(images, backend=backend)
    kernels.settle(plain.model, plain.masks, plain.optimizer)
    assert set(sparse_layers(plain.model)) == ALL
    assert plain.state().keys() == plain.export()["sparse"].keys() <= before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in plain.state().items())
    check_weights(plain.model, plain.masks, plain.optimizer, "there")
    kernels.leave(plain.model, plain.optimizer)
    assert sparse_layers(plain.model) == {}
    after = everything(plain)
    assert after.keys() == before.keys()
    assert len([name for name in after if " of " in name]) == (3 if kind == "sgd" else 9)
    assert all(torch.equal(tensor, before[name]) for name, tensor in after.items())
    assert kernels.swaps == 6


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_a_change_of_pattern_keeps_survivors_and_what_grows_is_zero(
    kind: str, host_of: Callable[..., Host], images: Splits
) -> None:
    kernels = kernels_for(images)
    host = host_of(Follows({0: 0.6, 3: 0.6}, random=True), 0.6, kernels=kernels)
    step = started(host, images, kind)
    for _ in range(3):
        step()
    old = dict(host.masks)
    kernels.leave(host.model, host.optimizer)
    before = everything(host)
    kernels.settle(host.model, host.masks, host.optimizer)
    swaps = kernels.swaps
    host.event(Event.STEP_BEGIN)
    assert kernels.swaps == swaps  # the layers stayed where they were
    assert set(sparse_layers(host.model)) == ALL
    new = dict(host.masks)
    kernels.leave(host.model, host.optimizer)
    after = everything(host)
    for key, tensor in after.items():
        name = key.rpartition(" ")[2]
        if name in new:
            assert bool((new[name] & ~old[name]).any())
            assert torch.equal(tensor, before[key] * (old[name] & new[name]))


def test_phases_swap_layers_out_and_in(host_of: Callable[..., Host], images: Splits) -> None:
    kernels = kernels_for(images)
    host = host_of(Follows({1: 0.7, 2: 0.0, 3: 0.4, 4: 0.7}), 0.7, kernels=kernels)
    step, seen = started(host, images), []
    for _ in range(5):
        step()
        seen.append(set(sparse_layers(host.model)))
    assert seen == [set(), ALL, set(), set(), ALL]  # at 0.4 kernels are not worth it
    assert kernels.swaps == 9


@pytest.mark.parametrize("kind", ["sgd", "adam"])
@pytest.mark.parametrize("sparsities", [{0: 0.7}, {1: 0.6, 3: 0.8}, {0: 0.8, 3: 0.0, 6: 0.8}])
def test_masked_and_sparse_training_agree(
    sparsities: dict[int, float], kind: str, host_of: Callable[..., Host], images: Splits
) -> None:
    check_agreement(sparsities, kind, host_of, images, kernels_for(images))


def check_agreement(
    sparsities: dict[int, float], kind: str, host_of: Callable[..., Host], images: Splits, kernels: Kernels
) -> None:
    hosts = [host_of(Follows(sparsities), 0.8, kernels=each) for each in (None, kernels)]
    for host in hosts:
        step = started(host, images, kind)
        torch.manual_seed(1)  # dropout
        for _ in range(8):
            step()
    assert all(torch.equal(hosts[0].masks[name], hosts[1].masks[name]) for name in hosts[0].masks)
    dense, sparse = (host.state() for host in hosts)
    for name, tensor in dense.items():
        torch.testing.assert_close(sparse[name], tensor, rtol=1e-3, atol=1e-4)


class Halves(CythonBackend):
    """A backend whose gradients are wrong by a factor."""

    def bind(self, problem: Any, weight: Any) -> Any:
        kernel = super().bind(problem, weight)
        backward = kernel.backward
        kernel.backward = lambda *args, **kwargs: [None if g is None else g / 2 for g in backward(*args, **kwargs)]
        return kernel


def test_the_agreement_catches_a_wrong_kernel(host_of: Callable[..., Host], images: Splits) -> None:
    check_agreement({0: 0.7}, "sgd", host_of, images, kernels_for(images, backend=CythonBackend()))
    with pytest.raises(AssertionError):
        check_agreement({0: 0.7}, "sgd", host_of, images, kernels_for(images, backend=Halves()))


def test_dense_gradients_are_dense_for_their_step_alone(host_of: Callable[..., Host], images: Splits) -> None:
    method = Follows({0: 0.7}, wants=(2, 4))
    host = host_of(method, 0.7, kernels=kernels_for(images))
    step = started(host, images)
    for _ in range(6):
        step()
        assert set(sparse_layers(host.model)) == ALL
    assert {at: layers for at, (layers, _) in method.seen.items()} == {
        at: set() if at in (2, 4) else ALL for at in range(6)
    }
    assert all((outside > 100) == (at in (2, 4)) for at, (_, outside) in method.seen.items())


def test_a_change_at_dense_gradients_trains_what_it_grows(host_of: Callable[..., Host], images: Splits) -> None:
    """Of masks that change between gradients and optimizer, the kernel gets the gradients of the new pattern."""

    class Grows(Follows):
        def on_event(self, event: Event, ctx: Context) -> Update | None:
            if event is Event.GRADS_READY and ctx.step == 2:
                gradients = {name: ctx.gradients(name) for name in ctx.prunable}
                return Update(masks=ctx.select({n: g.abs() for n, g in gradients.items() if g is not None}))
            return super().on_event(event, ctx)

    states = []
    for kernels in (None, kernels_for(images)):
        host = host_of(Grows({0: 0.7}, random=True, wants=(2,)), 0.7, kernels=kernels)
        step = started(host, images)
        torch.manual_seed(1)
        for _ in range(3):
            step()
        states.append(host.state())
        for name, mask in host.masks.items():
            assert int(states[-1][name].count_nonzero()) == int(mask.sum())
    for name, tensor in states[0].items():
        torch.testing.assert_close(states[1][name], tensor, rtol=1e-3, atol=1e-4)


class NoConvolutions(CythonBackend):
    def unsupported(self, problem: Any) -> str | None:
        return "no convolutions here" if problem.op == "conv2d" else super().unsupported(problem)


def test_a_layer_that_the_backend_refuses_stays_dense_and_masked(host_of: Callable[..., Host], images: Splits) -> None:
    kernels = kernels_for(images, backend=NoConvolutions())
    host = host_of(Follows({0: 0.7, 2: 0.0, 3: 0.7}), 0.7, kernels=kernels)
    train(host.model, images, RECIPE, host=host)
    assert set(sparse_layers(host.model)) == {"fc1", "fc2"}
    weight = host.model.get_parameter("conv.weight").detach()
    assert int(weight.count_nonzero()) == int(host.masks["conv.weight"].sum()) == 22
    assert kernels.swaps == 6


def test_a_layer_under_the_least_sparsity_stays_dense(host_of: Callable[..., Host], images: Splits) -> None:
    for least, expected in ((0.8, set()), (0.6, ALL)):
        host = host_of(Follows({0: 0.7}), 0.7, kernels=kernels_for(images, min_sparsity=least))
        started(host, images)()
        assert set(sparse_layers(host.model)) == expected


class Own(nn.Linear):
    """A subclass, which may use its weight in other ways."""


def test_zeros_that_were_not_pruned_are_no_pattern(
    net: Callable[..., nn.Module], host_of: Callable[..., Host], images: Splits
) -> None:
    model: Any = net()
    nn.init.zeros_(model.fc2.weight)
    host = host_of(Follows({0: 0.7}), 0.7, model=model, exclude=["fc2"], kernels=kernels_for(images))
    started(host, images)()
    assert set(sparse_layers(model)) == {"conv", "fc1"}
    assert bool(model.fc2.weight.any())


def test_subclasses_stay_dense_beside_kernels(
    net: Callable[..., nn.Module], host_of: Callable[..., Host], images: Splits
) -> None:
    model: Any = net()
    model.fc2 = Own(16, 3)
    host = host_of(Follows({0: 0.7}), 0.7, model=model, kernels=kernels_for(images))
    train(model, images, RECIPE, host=host)
    assert set(sparse_layers(model)) == {"conv", "fc1"}
    assert int(model.fc2.weight.detach().count_nonzero()) == int(host.masks["fc2.weight"].sum())


def test_a_layer_with_two_names_is_one_sparse_layer(host_of: Callable[..., Host], images: Splits) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(32, 32)
            self.again, self.last = self.first, nn.Linear(32, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.again(torch.relu(self.first(x.flatten(1)))))

    torch.manual_seed(0)
    model = Twice()
    names = set(model.state_dict())
    host = host_of(Follows({0: 0.7}), 0.7, model=model, kernels=kernels_for(images))
    train(model, images, RECIPE, host=host)
    assert len(sparse_layers(model)) == 2
    state = host.state()
    assert set(state) == names
    assert torch.equal(state["first.weight"], state["again.weight"])


def test_a_pattern_that_is_not_the_mask_is_caught(host_of: Callable[..., Host], images: Splits) -> None:
    host = host_of(Follows({0: 0.7}), 0.7, kernels=kernels_for(images))
    started(host, images)()
    sparse_layers(host.model)["fc1"].set_pattern(~host.masks["fc1.weight"])
    with pytest.raises(InvariantError, match=r"sparse layer of fc1\.weight has another pattern") as error:
        check_weights(host.model, host.masks, host.optimizer, "here")
    assert error.value.invariant == "weights"


def test_a_lone_layer_has_no_place_for_a_kernel(host_of: Callable[..., Host], images: Splits) -> None:
    kernels = kernels_for(images, example_input=torch.ones(4, 8))
    host = host_of(Follows({0: 0.7}), 0.7, model=nn.Linear(8, 8), kernels=kernels)
    with pytest.raises(UsageError, match="one lone layer"):
        started(host, images)()
