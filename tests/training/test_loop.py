"""Training learns, repeats itself, looks at the test set once; evaluation moves nothing."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparsebench.errors import TrainingError, UsageError
from sparsebench.pruning.host import fixed_masks
from sparsebench.pruning.masks import sparsity_of
from sparsebench.registry import load_registry
from sparsebench.training.data import Examples, Splits, load_splits
from sparsebench.training.loop import evaluate, learning_rate, shuffled_batches, train


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def test_learns_and_reports(blobs: Splits) -> None:
    seen: list[tuple[int, float, float]] = []
    result = train(net(), blobs, epochs=6, batch=32, progress=lambda *row: seen.append(row))
    assert result.accuracy > 0.9
    assert result.steps == 6 * (200 // 32)
    assert len(result.history) == 6 == len(seen)
    assert [row[0] for row in seen] == [1, 2, 3, 4, 5, 6]
    assert result.validation_accuracy == result.history[-1] == seen[-1][2]
    assert result.loss == seen[-1][1] < seen[0][1]
    assert result.seconds == pytest.approx(sum(result.splits_ns.values()) / 1e9)


def test_the_seed_decides_everything_and_the_global_state_comes_back(blobs: Splits) -> None:
    first, second, other = net(), net(), net()
    state = torch.get_rng_state()
    train(first, blobs, epochs=2, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    train(second, blobs, epochs=2, seed=1)
    train(other, blobs, epochs=2, seed=2)
    assert torch.equal(weights(first), weights(second))
    assert not torch.equal(weights(first), weights(other))


def test_masks_hold_and_after_step_runs_every_step(blobs: Splits) -> None:
    model, calls = net(), []
    masks = {"0.weight": torch.rand(16, 8) < 0.3}

    def after_step() -> None:
        assert not bool(model[0].weight[~masks["0.weight"]].any())
        calls.append(1)

    result = train(model, blobs, epochs=2, masks=masks, after_step=after_step, weight_decay=0.01)
    assert len(calls) == result.steps


def test_the_test_set_is_touched_once_and_changes_nothing(blobs: Splits) -> None:
    shuffled = blobs._replace(test=Examples(blobs.test.inputs, (blobs.test.labels + 1) % 3))
    first, second = net(), net()
    honest, wrong = train(first, blobs, epochs=2), train(second, shuffled, epochs=2)
    assert torch.equal(weights(first), weights(second))
    assert wrong.history == honest.history
    assert wrong.accuracy < 0.2 < honest.accuracy


def test_a_learning_rate_that_explodes_is_an_error_of_its_own(blobs: Splits) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    with pytest.raises(TrainingError, match="lower the learning rate"):
        train(model, blobs, epochs=50, lr=1e30)
    with pytest.raises(UsageError, match="epochs = 0"):
        train(model, blobs, epochs=0)


def test_learning_rate_rises_then_falls_to_nearly_zero() -> None:
    rates = [learning_rate(step, 100, 0.5) for step in range(100)]
    assert rates[0] == pytest.approx(0.05)
    assert max(rates) == rates[9] == 0.5
    assert rates[:10] == sorted(rates[:10])
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert 0 < rates[-1] < 0.001
    assert [learning_rate(0, 1, 0.5), *(learning_rate(s, 2, 0.5) for s in range(2))] == [0.5, 0.5, pytest.approx(0.25)]


def test_batches_visit_everything_in_a_new_order_each_epoch() -> None:
    examples = Examples(torch.arange(10.0).unsqueeze(1), torch.arange(10))
    stream = shuffled_batches(examples, 5, seed=0)
    epochs = [[label for _ in range(2) for label in next(stream).labels.tolist()] for _ in range(3)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(10))] * 3
    assert epochs[0] != epochs[1] != epochs[2]
    inputs, labels = next(stream)
    assert inputs.squeeze(1).tolist() == labels.tolist()
    assert len(next(shuffled_batches(examples, 64, seed=0)).labels) == 10
    assert {len(batch.labels) for batch, _ in zip(shuffled_batches(examples, 4, 0), range(9), strict=False)} == {4}
    with pytest.raises(UsageError, match="no examples"):
        next(shuffled_batches(Examples(torch.zeros(0, 1), torch.zeros(0)), 4, 0))


def careless_evaluate(model: nn.Module, examples: Examples) -> float:
    """The widespread fault: batch norms and dropout are left in training mode."""
    with torch.no_grad():
        return float((model(examples.inputs).argmax(1) == examples.labels).float().mean())


def check_evaluation(function: Any, examples: Examples) -> None:
    model = net().train()
    model[1].eval()  # frozen by its owner: must not be woken
    model.append(nn.BatchNorm1d(3))
    buffers = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes, state = [m.training for m in model.modules()], torch.get_rng_state()
    function(model, examples)
    assert torch.equal(torch.get_rng_state(), state)
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(tensor, buffers[name]) for name, tensor in model.state_dict().items())


def test_evaluation_moves_nothing(blobs: Splits) -> None:
    check_evaluation(evaluate, blobs.test)
    with pytest.raises(AssertionError):
        check_evaluation(careless_evaluate, blobs.test)


def test_evaluation_counts() -> None:
    class Echo(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.one_hot(x[:, 0].long(), 4).float()

    labels = torch.arange(1000) % 4
    inputs = torch.where(torch.arange(1000) < 250, (labels + 1) % 4, labels).unsqueeze(1).float()
    assert evaluate(Echo(), Examples(inputs, labels)) == 0.75
    with pytest.raises(UsageError, match="no examples"):
        evaluate(Echo(), Examples(torch.zeros(0, 1), torch.zeros(0)))


def test_digits_with_nine_of_ten_weights_gone_reach_95_percent() -> None:
    registry = load_registry()
    splits, features = load_splits(registry.datasets["digits"], registry.models["mlp"].spec.inputs)
    torch.manual_seed(0)
    model = registry.models["mlp"].load()(num_classes=10, in_channels=features)
    static, uniform = registry.create("methods", "static"), registry.create("allocators", "uniform")
    masks = fixed_masks(model, static, uniform, 0.9, seed=0)
    result = train(model, splits, masks=masks)
    assert result.accuracy > 0.95
    assert math.isclose(sparsity_of({"fc2.weight": model.fc2.weight.detach() != 0}), 0.9, abs_tol=1e-5)
