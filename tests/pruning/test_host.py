"""The host holds masks on whatever a model is made of, and does for a method what it says that it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparsebench.errors import BudgetError, InvariantError, UsageError
from sparsebench.pruning.context import Context
from sparsebench.pruning.contract import ANSWERED, Event, Update
from sparsebench.pruning.host import Host
from sparsebench.pruning.masks import kept
from sparsebench.training.data import Examples, Splits
from sparsebench.training.loop import train
from sparsebench.training.recipe import Recipe

RECIPE = Recipe(epochs=2, batch=32, lr=0.05, weight_decay=0.01)


class Magnitude:
    """Prunes at setup and again at every epoch."""

    def setup(self, ctx: Context) -> Update:
        return Update(masks=ctx.select({name: weight.abs() for name, weight in ctx.prunable.items()}))

    def on_event(self, event: Event, ctx: Context) -> Update | None:
        return self.setup(ctx) if event is Event.EPOCH_BEGIN else None


def check_counts(host: Host, sparsity: float) -> None:
    """Every prunable weight, as an outsider finds it in the exported state, has exactly its number of non-zeros."""
    state = host.export()["sparse"]
    assert set(host.masks) <= set(state)
    for name, mask in host.masks.items():
        assert int(mask.sum()) == kept(mask.numel(), sparsity)
        assert not bool(state[name][~mask].any())
        assert int(state[name].count_nonzero()) == int(mask.sum())


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_an_ordinary_model(optimizer: str, host_of: Callable[..., Host], images: Splits) -> None:
    host = host_of(Magnitude(), 0.7)
    train(host.model, images, Recipe(epochs=2, batch=32, lr=0.01, optimizer=optimizer, weight_decay=0.1), host=host)
    check_counts(host, 0.7)


def test_frozen_weights_are_masked_and_never_trained(
    net: Callable[..., nn.Module], host_of: Callable[..., Host], images: Splits
) -> None:
    model = net()
    model.get_parameter("fc1.weight").requires_grad_(False)
    before = model.get_parameter("fc1.weight").clone()
    host = host_of(Magnitude(), model=model)
    train(model, images, RECIPE, host=host)
    check_counts(host, 0.5)
    assert torch.equal(model.get_parameter("fc1.weight"), before * host.masks["fc1.weight"])


class Shared(nn.Module):
    """Two layers with one weight, and a layer that is used twice under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(32, 32), nn.Linear(32, 32)
        self.second.weight = self.first.weight
        self.third = nn.Linear(32, 32)
        self.again = self.third
        self.last = nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.first, self.second, self.third, self.again):
            x = torch.relu(layer(x))
        return self.last(x)


def flat_images(images: Splits) -> Splits:
    return images._replace(
        **{name: Examples(getattr(images, name).inputs.flatten(1), getattr(images, name).labels)
           for name in ("train", "validation", "test")}
    )  # fmt: skip


def test_shared_weights_and_layers_count_once(host_of: Callable[..., Host], images: Splits) -> None:
    torch.manual_seed(0)
    host = host_of(Magnitude(), model=Shared())
    assert list(host.masks) == ["first.weight", "third.weight", "last.weight"]
    train(host.model, flat_images(images), RECIPE, host=host)
    check_counts(host, 0.5)
    state = host.state()
    assert torch.equal(state["first.weight"], state["second.weight"])
    assert torch.equal(state["third.weight"], state["again.weight"])


def test_channels_last_weights(net: Callable[..., nn.Module], host_of: Callable[..., Host], images: Splits) -> None:
    plain, other = net(), net().to(memory_format=torch.channels_last)
    hosts = [host_of(Magnitude(), model=model) for model in (plain, other)]
    for host in hosts:
        train(host.model, images, RECIPE, host=host)
        check_counts(host, 0.5)
    weight = other.get_parameter("conv.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()
    assert not bool(
        hosts[1].ctx.optimizer_slots("conv.weight")["momentum_buffer"][~hosts[1].masks["conv.weight"]].any()
    )
    torch.testing.assert_close(weight, plain.get_parameter("conv.weight"), rtol=1e-3, atol=1e-4)


def test_excluded_layers_norms_and_biases_are_left_alone(host_of: Callable[..., Host], images: Splits) -> None:
    host = host_of(Magnitude(), exclude=["fc2"])
    train(host.model, images, RECIPE, host=host)
    state = host.state()
    assert list(host.masks) == ["conv.weight", "fc1.weight"]
    assert all(bool(state[name].all()) for name in ("fc2.weight", "norm.weight", "conv.bias", "fc1.bias"))


def test_what_a_host_refuses(host_of: Callable[..., Host]) -> None:
    for sparsity in (-0.1, 1.0, float("nan")):
        with pytest.raises(UsageError, match="use a share of pruned weights"):
            host_of(Magnitude(), sparsity)
    with pytest.raises(BudgetError, match="no Linear or Conv2d weight left"):
        host_of(Magnitude(), model=nn.Linear(2, 2), exclude=["weight"])
    with pytest.raises(UsageError, match="method Magnitude needs 'gradients'; known: dense_grads"):
        host_of(Magnitude(), needs=["gradients"])
    with pytest.raises(UsageError, match="'fc3' is no Linear or Conv2d layer"):
        host_of(Magnitude(), exclude=["fc3"])


def test_events_come_in_their_order(host_of: Callable[..., Host], images: Splits) -> None:
    log: list[str] = []

    class Writes:
        def setup(self, ctx: Context) -> None:
            log.append(f"setup {ctx.epochs}x{ctx.steps_per_epoch}={ctx.steps}")

        def on_event(self, event: Event, ctx: Context) -> None:
            log.append(f"{event} {ctx.epoch}/{ctx.step}")

        def compress(self, calibration: Any, ctx: Context) -> None:
            log.append(f"compress {ctx.round} {ctx.epoch}/{ctx.step}")

        def export(self, ctx: Context) -> dict[str, Any]:
            log.append("export")
            return {"sparse": ctx.state()}

    host = host_of(Writes(), 0.0)
    train(host.model, images, Recipe(epochs=2, batch=48), host=host)
    host.export()
    steps = [
        [f"step begin {step // 2}/{step}", f"gradients ready {step // 2}/{step}", f"step end {step // 2}/{step + 1}"]
        for step in range(4)
    ]
    assert log == [
        "setup 2x2=4",
        "epoch begin 0/0", *steps[0], *steps[1],
        "epoch begin 1/2", *steps[2], *steps[3],
        "compress 0 2/4",
        "export",
    ]  # fmt: skip


def test_a_method_may_leave_a_step_out(host_of: Callable[..., Host], images: Splits) -> None:
    class Skips(Magnitude):
        def on_event(self, event: Event, ctx: Context) -> None:
            if event is Event.GRADS_READY:
                ctx.skip_step()

    host = host_of(Skips())
    before = host.model.get_parameter("fc1.weight").detach().clone()
    train(host.model, images, RECIPE, host=host)
    assert torch.equal(host.model.get_parameter("fc1.weight"), before * host.masks["fc1.weight"])


class OwnBudget:
    """Keeps what is above 0, layer by layer, and declares how many that is."""

    needs = frozenset({"own_budget"})

    def __init__(self, lies: bool = False) -> None:
        self.lies = lies

    def compress(self, calibration: Any, ctx: Context) -> Iterator[Update]:
        for name, weight in ctx.prunable.items():
            mask = weight > 0
            yield Update(masks={name: mask}, kept={name: int(mask.sum()) - self.lies})


def test_own_budgets_are_what_is_declared(host_of: Callable[..., Host], images: Splits) -> None:
    host = host_of(OwnBudget(), 0.9)
    train(host.model, images, RECIPE, host=host)
    assert 0.3 < host.sparsity_now < 0.7
    assert all(int(mask.sum()) == int((host.ctx.prunable[name] != 0).sum()) for name, mask in host.masks.items())
    lying = host_of(OwnBudget(lies=True), 0.9)
    with pytest.raises(InvariantError, match=r"conv\.weight keeps .* it declared") as error:
        train(lying.model, images, RECIPE, host=lying)
    assert error.value.invariant == "budget"
    with pytest.raises(InvariantError, match=r"'conv2\.weight', which is not prunable"):
        host_of(OwnBudget(), 0.9)._apply(Update(masks={}, kept={"conv2.weight": 3}), "compress")


def test_the_state_of_a_host_carries_over(host_of: Callable[..., Host], images: Splits) -> None:
    class Random:
        def on_event(self, event: Event, ctx: Context) -> Update:
            scores = {name: torch.rand(w.shape, generator=ctx.generator) for name, w in ctx.prunable.items()}
            return Update(masks=ctx.select(scores))

    first, second = host_of(Random(), seed=1), host_of(Random(), seed=2)
    for host in (first, second):
        host.begin(1, 4)
        host.event(Event.EPOCH_BEGIN)
    second.load_state_dict(first.state_dict())
    assert second.updates == 1
    for host in (first, second):
        host.event(Event.STEP_BEGIN)
    assert all(torch.equal(first.masks[name], second.masks[name]) for name in first.masks)
    assert all(not bool(second.ctx.prunable[name][~mask].any()) for name, mask in second.masks.items())


@pytest.mark.parametrize(("need", "function"), ANSWERED.items())
def test_a_need_without_its_function_is_an_error_before_work(
    need: str, function: str, host_of: Callable[..., Host]
) -> None:
    class Bare:
        needs = frozenset({need})

    with pytest.raises(UsageError, match=rf"needs '{need}' and has no {function}\(\)"):
        host_of(Bare())


def test_a_host_of_another_model_is_refused(
    net: Callable[..., nn.Module], host_of: Callable[..., Host], images: Splits
) -> None:
    class Bare:
        """Answers nothing."""

    with pytest.raises(UsageError, match="another model"):
        train(net(), images, Recipe(epochs=1), host=host_of(Bare()))
