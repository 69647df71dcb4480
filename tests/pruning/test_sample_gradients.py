"""Sample gradients are those of each batch's mean loss, of images, of text, on kernels; taking them moves nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsebench.errors import UsageError
from sparsebench.nn import sparse_layers
from sparsebench.pruning.calibration import Calibration
from sparsebench.pruning.kernels import Kernels
from sparsebench.pruning.sample_gradients import gradient_count, sample_gradients
from sparsebench.training.data import Splits

NAMES = ("fc2.weight", "conv.weight", "fc1.weight")  # in an order of our own
Take = Callable[[Calibration, nn.Module, Sequence[str], int], Iterator[Tensor]]


def calibration(images: Splits, count: int = 40, batch: int = 16) -> Calibration:
    return Calibration(images.train.inputs, images.train.labels, count=count, batch=batch)


def by_backward(images: Splits, model: nn.Module, examples: Calibration) -> Tensor:
    """The same by `backward()` on a model in eval mode [batches, weights]."""
    model.eval()
    rows = []
    for ids in examples.ids.split(examples.batch):
        model.zero_grad()
        F.cross_entropy(model(images.train.inputs[ids]), images.train.labels[ids]).backward()
        rows.append(torch.cat([model.get_parameter(name).grad.flatten() for name in NAMES]))  # type: ignore[union-attr]
    return torch.stack(rows)


def are_those_of_each_batch(take: Take, net: Callable[..., nn.Module], images: Splits) -> None:
    """One a batch, the last and smaller one too, and each as `backward()` gives it."""
    examples = calibration(images)
    found = torch.stack(list(take(examples, net().train(), NAMES, 100)))
    assert len(found) == gradient_count(examples, 100) == 3
    torch.testing.assert_close(found, by_backward(images, net(), examples))


def move_nothing(take: Take, net: Callable[..., nn.Module], images: Splits) -> None:
    """Weights, statistics, `.grad`, modes and random state are as before, also when nobody takes the rest."""
    model = net().train()
    model.get_submodule("norm").eval()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before, random = {n: t.clone() for n, t in model.state_dict().items()}, torch.get_rng_state()
    next(take(calibration(images), model, NAMES, 3))
    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in model.modules()] == [True, True, False, True, True, True]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(bool((parameter.grad == 1).all()) for parameter in model.parameters())  # type: ignore[union-attr]


def all_but_the_last(*args: Any) -> Iterator[Tensor]:
    """As published code does, which stops at a full row too early."""
    yield from list(sample_gradients(*args))[:-1]


def as_it_trains(examples: Calibration, model: nn.Module, names: Sequence[str], count: int) -> Iterator[Tensor]:
    """By `backward()` in the mode that the model is in."""
    for inputs, labels in islice(examples.batches(), count):
        model.zero_grad()
        F.cross_entropy(model(inputs), labels).backward()
        yield torch.cat([model.get_parameter(name).grad.flatten() for name in names])  # type: ignore[union-attr]


def summed(*args: Any) -> Iterator[Tensor]:
    """Of the sum of a batch's losses."""
    return (16 * gradient for gradient in sample_gradients(*args))


@pytest.mark.parametrize(
    ("oracle", "broken"),
    [
        (are_those_of_each_batch, all_but_the_last),
        (are_those_of_each_batch, as_it_trains),
        (are_those_of_each_batch, summed),
        (move_nothing, as_it_trains),
    ],
)
def test_it_passes_and_its_twin_fails(
    oracle: Callable[..., None], broken: Take, net: Callable[..., nn.Module], images: Splits
) -> None:
    oracle(sample_gradients, net, images)
    with pytest.raises(AssertionError):
        oracle(broken, net, images)


@pytest.mark.parametrize(("asked", "given"), [(1, 1), (2, 2), (3, 3), (4, 3)])
def test_the_first_batches_and_no_more_than_there_are(
    asked: int, given: int, net: Callable[..., nn.Module], images: Splits
) -> None:
    examples = calibration(images)
    found = list(sample_gradients(examples, net(), NAMES, asked))
    assert len(found) == gradient_count(examples, asked) == given
    torch.testing.assert_close(torch.stack(found), by_backward(images, net(), examples)[:given])


def test_on_kernels_they_are_those_of_the_pattern(net: Callable[..., nn.Module], images: Splits) -> None:
    model, dense = net(), net()
    draw = torch.Generator().manual_seed(0)
    masks = {name: torch.rand(dense.get_parameter(name).shape, generator=draw) < 0.3 for name in NAMES}
    with torch.no_grad():
        for each in (model, dense):
            for name, mask in masks.items():
                each.get_parameter(name).mul_(mask)
    Kernels("cython", images.train.inputs[:16]).settle(model, masks, None)
    assert set(sparse_layers(model)) == {"conv", "fc1", "fc2"}
    found = torch.stack(list(sample_gradients(calibration(images), model, NAMES, 3)))
    full = by_backward(images, dense, calibration(images))
    pattern = torch.cat([masks[name].flatten() for name in NAMES])
    torch.testing.assert_close(found, full * pattern, rtol=1e-4, atol=1e-6)
    assert bool(full[:, ~pattern].any())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_of_text_the_loss_is_the_mean_over_all_places() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 7))
    tokens = torch.randint(7, (6, 5))
    examples = Calibration(tokens, tokens.roll(-1, 1), count=6, batch=2)
    found = torch.stack(list(sample_gradients(examples, model, ["1.weight"], 3)))
    for row, ids in zip(found, examples.ids.split(2), strict=True):
        model.zero_grad()
        logits = model(tokens[ids]).reshape(10, 7)
        F.nll_loss(logits.log_softmax(1), tokens.roll(-1, 1)[ids].reshape(10)).backward()
        torch.testing.assert_close(row, model[1].weight.grad.flatten())


def test_a_layer_that_is_used_twice_gets_both_parts_and_one_that_is_not_used_gets_zeros(images: Splits) -> None:
    torch.manual_seed(0)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.twice, self.idle, self.last = nn.Linear(32, 32), nn.Linear(3, 2), nn.Linear(32, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.twice(self.twice(x.flatten(1)).relu()).relu())

    model, examples = Net(), calibration(images, count=8, batch=8)
    twice, idle = next(sample_gradients(examples, model, ["twice.weight", "idle.weight"], 1)).split([1024, 6])
    F.cross_entropy(model(images.train.inputs[examples.ids]), images.train.labels[examples.ids]).backward()
    torch.testing.assert_close(twice, model.twice.weight.grad.flatten())  # type: ignore[union-attr]
    assert not bool(idle.any())


def test_a_weight_that_takes_no_gradient_is_an_error_that_names_it(
    net: Callable[..., nn.Module], images: Splits
) -> None:
    model = net()
    model.get_parameter("fc1.weight").requires_grad_(False)
    with pytest.raises(UsageError, match=r"fc1\.weight takes no gradient .*; exclude its layer"):
        next(sample_gradients(calibration(images), model, NAMES, 1))


def test_a_model_that_draws_when_it_is_evaluated_leaves_the_random_state(images: Splits) -> None:
    class Noisy(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.flatten(1)) + torch.randn(3)

    model = Noisy(32, 3)
    random = torch.get_rng_state()
    list(sample_gradients(calibration(images), model, ["weight"], 3))
    assert torch.equal(torch.get_rng_state(), random)
