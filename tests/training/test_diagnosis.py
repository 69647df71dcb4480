"""The place where numbers stopped being finite is named: inputs, a weight, or the first layer; nothing is moved."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sparsebench.training.diagnosis import first_not_finite


class Explodes(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * float("inf")


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)), nn.BatchNorm1d(4), nn.Linear(4, 2)
    )


INPUTS = torch.ones(3, 4)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_inputs_come_first_then_weights_in_order(bad: float) -> None:
    model = net()
    with torch.no_grad():
        model[3].bias[0] = bad
    assert first_not_finite(model, INPUTS) == "3.bias is not finite"
    with torch.no_grad():
        model[1][0].weight[1, 1] = bad
    assert first_not_finite(model, INPUTS) == "1.0.weight is not finite"
    assert first_not_finite(model, INPUTS * bad) == "the inputs are not finite"


def test_else_it_is_the_innermost_layer_whose_output_is_not() -> None:
    model = net()
    model[1].insert(1, Explodes())
    assert first_not_finite(model, INPUTS) == "the output of 1.1 is not finite"
    with torch.no_grad():
        model[0].weight.fill_(3e38)
    assert first_not_finite(model, INPUTS) == "the output of 0 is not finite"


def test_else_the_model_itself_or_its_loss() -> None:
    lone = nn.Linear(4, 2)
    with torch.no_grad():
        lone.weight.fill_(3e38)
    assert first_not_finite(lone, INPUTS) == "the output of the model is not finite"
    assert first_not_finite(net(), INPUTS) == "every layer's output is finite, the loss is not"


def test_looking_moves_nothing() -> None:
    model = net().train()
    before, state = {name: t.clone() for name, t in model.state_dict().items()}, torch.get_rng_state()
    model[1].insert(2, Explodes())
    first_not_finite(model, INPUTS)
    del model[1][2]
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert all(module.training and not module._forward_hooks for module in model.modules())
