"""Evaluation counts right answers and moves nothing: no random state, statistic or mode."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparsebench.errors import UsageError
from sparsebench.training.data import Examples, Splits
from sparsebench.training.evaluate import evaluate


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))


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


def test_modes_come_back_after_an_error(blobs: Splits) -> None:
    model = net().train()
    with pytest.raises(RuntimeError):
        evaluate(model, Examples(blobs.test.inputs[:, :3], blobs.test.labels))
    assert all(module.training for module in model.modules())
