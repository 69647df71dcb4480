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
