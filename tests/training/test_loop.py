"""Training learns, repeats itself, holds masks, looks at the test set once, and says where it broke."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparsebench.errors import TrainingError, UsageError
from sparsebench.pruning.contract import Update
from sparsebench.pruning.fixed import fixed_masks
from sparsebench.pruning.host import Host
from sparsebench.pruning.masks import sparsity_of
from sparsebench.registry import load_registry
from sparsebench.training.data import Examples, Splits, load_splits
from sparsebench.training.loop import Mark, TrainResult, train
from sparsebench.training.recipe import Recipe


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))


TWO = Recipe(epochs=2)


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def test_learns_and_reports(blobs: Splits) -> None:
    seen: list[tuple[int, float, float]] = []
    result = train(net(), blobs, Recipe(epochs=6, batch=32), progress=lambda *row: seen.append(row))
    assert result.accuracy > 0.9
    assert result.steps == 6 * (200 // 32)
    assert len(result.marks) == 6 == len(seen)
    assert [row[0] for row in seen] == [1, 2, 3, 4, 5, 6]
    assert result.validation_accuracy == result.marks[-1].validation_accuracy == seen[-1][2]
    assert result.loss == seen[-1][1] < seen[0][1]
    assert result.seconds == pytest.approx(sum(result.splits_ns.values()) / 1e9)
    assert [mark.seconds for mark in result.marks] == sorted(mark.seconds for mark in result.marks)
    assert 0 < result.marks[0].seconds < result.marks[-1].seconds == pytest.approx(result.seconds)


def test_the_seed_decides_everything_and_the_global_state_comes_back(blobs: Splits) -> None:
    first, second, other = net(), net(), net()
    state = torch.get_rng_state()
    train(first, blobs, Recipe(epochs=2, seed=1))
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    train(second, blobs, Recipe(epochs=2, seed=1))
    train(other, blobs, Recipe(epochs=2, seed=2))
    assert torch.equal(weights(first), weights(second))
    assert not torch.equal(weights(first), weights(other))


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_masks_hold(blobs: Splits, optimizer: str) -> None:
    model, masks = net(), {"0.weight": torch.rand(16, 8) < 0.3}
    kept = int(masks["0.weight"].sum())
    live: list[int] = []
    result = train(
        model,
        blobs,
        Recipe(epochs=3, weight_decay=0.01, optimizer=optimizer, lr=0.02),
        masks=masks,
        progress=lambda *_: live.append(int(model[0].weight.detach().count_nonzero())),
    )
    assert live == [kept] * 3
    assert not bool(model[0].weight[~masks["0.weight"]].any())
    sparsity = (128 - kept) / (128 + 48)
    assert [mark.sparsity for mark in result.marks] == pytest.approx([sparsity] * 3)


def test_the_test_set_is_touched_once_and_changes_nothing(blobs: Splits) -> None:
    shuffled = blobs._replace(test=Examples(blobs.test.inputs, (blobs.test.labels + 1) % 3))
    first, second = net(), net()
    honest, wrong = train(first, blobs, TWO), train(second, shuffled, TWO)
    assert torch.equal(weights(first), weights(second))
    assert [mark[1:] for mark in wrong.marks] == [mark[1:] for mark in honest.marks]
    assert wrong.accuracy < 0.2 < honest.accuracy


def test_a_learning_rate_that_explodes_is_an_error_of_its_own(blobs: Splits) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    with pytest.raises(
        TrainingError, match=r"at step \d+: .*(weight|bias|output of).* not finite; lower the learning rate"
    ):
        train(model, blobs, Recipe(epochs=50, lr=1e30))
    with pytest.raises(UsageError, match="epochs = -1"):
        train(model, blobs, Recipe(epochs=-1))
    with pytest.raises(UsageError, match="no examples to train on"):
        train(model, blobs._replace(train=Examples(torch.zeros(0, 8), torch.zeros(0))))


def test_the_global_random_state_comes_back_after_an_error(blobs: Splits) -> None:
    model, state = net(), torch.get_rng_state()
    with pytest.raises(TrainingError):
        train(model, blobs, Recipe(epochs=50, lr=1e30))
    assert torch.equal(torch.get_rng_state(), state)


def test_seconds_to_a_goal_are_those_of_the_first_epoch_that_reaches_it() -> None:
    marks = (
        Mark(1.0, 0.7, 0.0),
        Mark(2.0, 0.92, 0.5),
        Mark(3.0, 0.85, 0.9),
        Mark(4.0, 0.91, 0.9),
        Mark(5.0, 0.95, 0.9),
    )
    result = TrainResult(0.9, 0.95, 0.1, 5.0, {}, 10, marks)
    assert result.seconds_to(0.9) == 2.0
    assert result.seconds_to(0.9, sparsity=0.9) == 4.0  # the second epoch was not so sparse
    assert (
        result.seconds_to(0.9, sparsity=0.9005) is None
    )  # nearly is not there yet: it is a tenth more weights at 0.99
    assert result.seconds_to(0.0) == 1.0
    assert result.seconds_to(0.96) is None
    assert result.seconds_to(0.5, sparsity=0.95) is None


def test_digits_with_nine_of_ten_weights_gone_reach_95_percent() -> None:
    registry = load_registry()
    splits, features = load_splits(registry.datasets["digits"], registry.models["mlp"].spec.inputs)
    torch.manual_seed(0)
    model = registry.models["mlp"].load()(num_classes=10, in_channels=features)
    static, uniform = registry.create("methods", "static"), registry.create("allocators", "uniform")
    masks = fixed_masks(model, static, uniform, 0.9, seed=0)
    result = train(model, splits, Recipe(epochs=12), masks=masks)
    assert result.accuracy > 0.95
    assert math.isclose(sparsity_of({"fc2.weight": model.fc2.weight.detach() != 0}), 0.9, abs_tol=1e-5)


def test_what_is_done_after_the_last_step_takes_its_time_and_makes_a_mark(blobs: Splits) -> None:
    class Slow:
        def compress(self, calibration: Any, ctx: Any) -> Any:
            time.sleep(0.2)
            return Update(masks=ctx.select({name: weight.abs() for name, weight in ctx.prunable.items()}))

    model = net()
    registry = load_registry()
    host = Host(model, Slow(), registry.create("allocators", "erk"), sparsity=0.5)
    result = train(model, blobs, Recipe(epochs=2), host=host)
    assert result.seconds > 0.2
    assert [round(mark.sparsity, 2) for mark in result.marks] == [0.0, 0.0, 0.5]
    assert result.marks[-1].seconds == result.seconds > result.marks[1].seconds + 0.2
    assert result.validation_accuracy == result.marks[-1].validation_accuracy
    assert result.seconds_to(0.0, sparsity=0.5) == result.seconds


def test_no_epochs_is_one_shot_alone(blobs: Splits) -> None:
    model = net()
    before = weights(model)
    host = Host(model, load_registry().create("methods", "magnitude"), Same(), sparsity=0.5)
    result = train(model, blobs, Recipe(epochs=0), host=host)
    assert (result.steps, len(result.marks)) == (0, 1)
    kept = weights(model) != 0
    assert torch.equal(weights(model)[kept], before[kept])
    assert result.marks[0].sparsity == 0.5


class Same:
    """The target for every layer."""

    def allocate(self, layers: Any, target: float, ctx: Any) -> dict[str, float]:
        return dict.fromkeys(layers, target)
