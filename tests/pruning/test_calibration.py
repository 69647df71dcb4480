"""Calibration gives the same examples however they are batched; layers are compressed on inputs from pruned ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparsebench.errors import InvariantError, UsageError
from sparsebench.pruning.calibration import Calibration
from sparsebench.pruning.context import Context
from sparsebench.pruning.contract import Update
from sparsebench.pruning.host import Host
from sparsebench.training.data import Splits
from sparsebench.training.loop import train
from sparsebench.training.recipe import Recipe


def calibration(images: Splits, **options: int) -> Calibration:
    return Calibration(images.train.inputs, images.train.labels, **options)


def passes(images: Splits, **options: int) -> tuple[Tensor, Tensor]:
    """All inputs and labels of one pass."""
    inputs, labels = zip(*calibration(images, **options).batches(), strict=True)
    return torch.cat(inputs), torch.cat(labels)


@pytest.mark.parametrize("batch", [1, 7, 16, 40, 1000])
def test_every_batch_split_gives_the_same_examples(batch: int, images: Splits) -> None:
    inputs, labels = passes(images, count=40, batch=batch)
    expected = calibration(images, count=40)
    assert torch.equal(inputs, images.train.inputs[expected.ids])
    assert torch.equal(labels, images.train.labels[expected.ids])
    assert max(len(each) for _, each in calibration(images, count=40, batch=batch).batches()) == min(batch, 40)


def test_the_record_says_which_they_were(images: Splits) -> None:
    first = calibration(images, count=40, seed=3).record
    assert first == calibration(images, count=40, seed=3, batch=5).record
    assert first["examples"] == 40
    assert first["seed"] == 3
    assert len({calibration(images, count=40, seed=seed).record["ids"] for seed in range(5)}) == 5
    assert calibration(images).record["examples"] == 96  # all that there are
    assert len(calibration(images).ids.unique()) == 96
    for wrong in ({"count": 0}, {"batch": 0}):
        with pytest.raises(UsageError, match="use at least 1 of each"):
            calibration(images, **wrong)


def test_drawing_leaves_the_global_random_state(images: Splits) -> None:
    state = torch.get_rng_state()
    calibration(images)
    assert torch.equal(torch.get_rng_state(), state)


def test_inputs_of_a_layer_are_those_of_evaluation_and_move_nothing(
    net: Callable[..., nn.Module], images: Splits
) -> None:
    model = net().train()
    model.get_submodule("norm").eval()
    before, random = {name: t.clone() for name, t in model.state_dict().items()}, torch.get_rng_state()
    seen = torch.cat(list(calibration(images, batch=10).inputs_of(model, model.get_submodule("fc2"))))
    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in model.modules()] == [True, True, False, True, True, True]
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert not model.get_submodule("fc2")._forward_pre_hooks
    expected: list[Tensor] = []
    model.eval().get_submodule("fc2").register_forward_pre_hook(lambda _, args: expected.append(args[0].detach()))
    model(images.train.inputs[calibration(images).ids])
    torch.testing.assert_close(seen, expected[0])


def test_a_layer_that_is_used_twice_gives_both(images: Splits) -> None:
    layer = nn.Linear(32, 32)
    model = nn.Sequential(nn.Flatten(), layer, nn.ReLU(), layer)
    assert len(list(calibration(images, count=20, batch=10).inputs_of(model, layer))) == 4


class Long(nn.Module):
    """Layers that are used in another order than they were made in, one of them twice, and a count of what ran."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.last, self.first, self.unused, self.twice = (nn.Linear(6, 6) for _ in range(4))
        self.ran: list[str] = []
        for name, layer in self.named_children():
            layer.register_forward_hook(lambda *_, name=name: self.ran.append(name))

    def forward(self, x: Tensor) -> Tensor:
        x = self.twice(input=self.first(x))
        x = self.twice(x)
        y = self.last(x)
        x.mul_(2)
        return y + x


def long_passes(model: nn.Module, name: str, batch: int) -> list[Tensor]:
    inputs = torch.randn(10, 6, generator=torch.Generator().manual_seed(0))
    examples = Calibration(inputs, torch.zeros(10), count=10, batch=batch)
    return list(examples.inputs_of(model, model.get_submodule(name)))


@pytest.mark.parametrize(
    ("name", "after_the_first"),
    [("first", []), ("twice", ["first", "twice"]), ("last", ["first", "twice", "twice"]),
     ("unused", ["first", "twice", "twice", "last"])],
)  # fmt: skip
def test_a_forward_ends_where_the_layer_was_reached_for_the_last_time(name: str, after_the_first: list[str]) -> None:
    model = Long()
    uses = {"twice": 2, "unused": 0}.get(name, 1)
    assert len(long_passes(model, name, batch=4)) == 3 * uses
    assert model.ran == ["first", "twice", "twice", "last"] + 2 * after_the_first
    model.ran.clear()
    model(torch.zeros(1, 6))
    assert model.ran == ["first", "twice", "twice", "last"]  # no hook is left


@pytest.mark.parametrize("name", ["first", "twice", "last"])
def test_what_the_model_writes_later_is_not_what_a_layer_got(name: str) -> None:
    """The first batch runs on behind the layer, where its input is doubled in place."""
    whole, model = long_passes(Long(), name, batch=10), Long()
    parts = long_passes(model, name, batch=4)
    uses = len(whole)
    for use in range(uses):
        torch.testing.assert_close(torch.cat(parts[use::uses]), whole[use])
    x = model.twice(model.twice(model.first(torch.randn(10, 6, generator=torch.Generator().manual_seed(0)))))
    if name == "last":
        ids = torch.randperm(10, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(whole[0], x[ids].detach())


def test_an_error_of_the_model_is_not_taken_for_the_end() -> None:
    model = Long()
    model.first.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        long_passes(model, "last", batch=4)
    assert model.training
    assert not model.last._forward_pre_hooks


def test_the_order_of_execution_is_that_of_the_first_use() -> None:
    model = Long().train()
    examples = Calibration(torch.zeros(10, 6), torch.zeros(10))
    names = [f"{name}.weight" for name, _ in model.named_children()]
    wanted = ["first.weight", "twice.weight", "last.weight", "unused.weight"]
    assert examples.execution_order(model, names) == wanted
    assert examples.execution_order(model, names[::-1]) == wanted
    assert examples.execution_order(model, ["unused.weight", "last.weight"]) == ["last.weight", "unused.weight"]
    assert model.training
    assert not any(layer._forward_pre_hooks for layer in model.children())


def test_text_has_labels_for_every_token() -> None:
    tokens = torch.arange(40).reshape(10, 4)
    examples = Calibration(tokens, tokens + 1, count=6, batch=4)
    inputs, labels = zip(*examples.batches(), strict=True)
    assert [len(each) for each in inputs] == [4, 2]
    assert torch.equal(torch.cat(labels), torch.cat(inputs) + 1)
    model = nn.Sequential(nn.Embedding(41, 3), nn.Linear(3, 41))
    assert [each.shape for each in examples.inputs_of(model, model[1])] == [(4, 4, 3), (2, 4, 3)]
    assert examples.execution_order(model, ["1.weight"]) == ["1.weight"]


def test_what_a_method_notes_is_kept_once_and_counted(host_of: Callable[..., Host]) -> None:
    """And goes on from where an interrupted training was."""

    class Says:
        def compress(self, calibration: Any, ctx: Context) -> None:
            for text in ("one", "two", "one"):
                ctx.note(text)

    host = host_of(Says(), 0.0)
    assert host.notes == []
    host.begin()
    host.finish()
    assert host.notes == ["one (2 times)", "two"]
    again = host_of(Says(), 0.0)
    again.load_state_dict(host.state_dict())
    again.finish()
    assert again.notes == ["one (4 times)", "two (2 times)"]


class LayerByLayer:
    """Prunes one layer after the other by |weight| times the norm of its inputs, which it notes."""

    needs = frozenset({"calibration", "sequential"})

    def __init__(self, layers: int = 3) -> None:
        self.layers = layers
        self.inputs: dict[str, Tensor] = {}

    def compress(self, calibration: Any, ctx: Context) -> Iterator[Update]:
        for name, weight in list(ctx.prunable.items())[: self.layers]:
            layer = ctx.model.get_submodule(name.removesuffix(".weight"))
            self.inputs[name] = torch.cat(list(calibration.inputs_of(ctx.model, layer)))
            scores = {each: w.abs() for each, w in ctx.prunable.items()}
            if weight.dim() == 2:
                norms = self.inputs[name].norm(dim=0)
                scores[name] = weight.abs() * norms / norms.max()
            yield Update(masks={name: ctx.select(scores)[name]})


def compressed(method: Any, host_of: Callable[..., Host], images: Splits, **options: int) -> Host:
    host = host_of(method, 0.6, calibration=calibration(images, **{"count": 64, **options}))
    host.begin()
    host.finish()
    return host


@pytest.mark.parametrize("batch", [9, 64])
def test_layers_get_their_inputs_from_layers_that_are_pruned_already(
    batch: int, net: Callable[..., nn.Module], host_of: Callable[..., Host], images: Splits
) -> None:
    method = LayerByLayer()
    host = compressed(method, host_of, images, batch=batch)
    model, inputs = net().eval(), images.train.inputs[calibration(images, count=64).ids]
    dense = model.get_submodule("norm")(model.get_submodule("conv")(inputs)).relu().flatten(1)
    with torch.no_grad():
        model.get_parameter("conv.weight").mul_(host.masks["conv.weight"])
    pruned = model.get_submodule("norm")(model.get_submodule("conv")(inputs)).relu().flatten(1)
    torch.testing.assert_close(method.inputs["fc1.weight"], pruned.detach())
    with pytest.raises(AssertionError):
        torch.testing.assert_close(method.inputs["fc1.weight"], dense.detach())


def test_how_examples_are_batched_changes_no_mask(host_of: Callable[..., Host], images: Splits) -> None:
    hosts = [compressed(LayerByLayer(), host_of, images, batch=batch) for batch in (7, 64)]
    assert all(torch.equal(hosts[0].masks[name], hosts[1].masks[name]) for name in hosts[0].masks)


class AllAtOnce(LayerByLayer):
    """The fault: what is wanted is computed before anything is applied."""

    def compress(self, calibration: Any, ctx: Context) -> Iterator[Update]:
        return iter(list(super().compress(calibration, ctx)))


def test_a_method_that_does_not_wait_sees_dense_inputs(host_of: Callable[..., Host], images: Splits) -> None:
    right, wrong = LayerByLayer(), AllAtOnce()
    for method in (right, wrong):
        compressed(method, host_of, images)
    assert torch.equal(right.inputs["conv.weight"], wrong.inputs["conv.weight"])
    assert not torch.equal(right.inputs["fc1.weight"], wrong.inputs["fc1.weight"])


@pytest.mark.parametrize("scope", ["layer", "model"])
def test_layer_by_layer_the_end_is_held_to_the_whole_budget(
    scope: str, host_of: Callable[..., Host], images: Splits
) -> None:
    host = host_of(LayerByLayer(layers=2), 0.6, scope=scope, calibration=calibration(images))
    with pytest.raises(InvariantError, match=r"fc2\.weight keeps|the model keeps") as error:
        train(host.model, images, Recipe(epochs=1), host=host)
    assert error.value.invariant == "final-budget"


def test_layer_by_layer_each_is_held_to_its_own(host_of: Callable[..., Host], images: Splits) -> None:
    class OneShort(LayerByLayer):
        def compress(self, calibration: Any, ctx: Context) -> Iterator[Update]:
            for update in super().compress(calibration, ctx):
                (name, mask), *_ = (update.masks or {}).items()
                mask.view(-1)[mask.view(-1).nonzero()[0]] = name != "fc1.weight"
                yield update

    with pytest.raises(InvariantError, match=r"compress .*fc1\.weight keeps 409 of 1024 weights; its budget is 410"):
        compressed(OneShort(), host_of, images)


def test_values_that_one_layer_gets_are_in_the_model_when_the_next_is_asked_for(
    host_of: Callable[..., Host], images: Splits
) -> None:
    class Scales(LayerByLayer):
        def compress(self, calibration: Any, ctx: Context) -> Iterator[Update]:
            for update in super().compress(calibration, ctx):
                (name, mask), *_ = (update.masks or {}).items()
                values = ctx.prunable[name] * 3
                yield update._replace(weights={name: values})
                assert torch.equal(ctx.prunable[name], values * mask)

    host = compressed(Scales(), host_of, images)
    assert host.updates == 3
