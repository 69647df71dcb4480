"""Ten optimizer steps of a sparse model equal those of the masked dense one, also when exchanged in the middle."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from sparsebench.errors import UsageError
from sparsebench.nn import densify, sparse_layers, sparsify
from sparsebench.nn.optimizer import replace_parameter

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, foreach=True),
    "sgd fused": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, fused=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
    "adam fused": lambda p: torch.optim.Adam(p, lr=0.01, fused=True),
    "adamw foreach": lambda p: torch.optim.AdamW(p, lr=0.01, foreach=True),
    "adamw fused": lambda p: torch.optim.AdamW(p, lr=0.01, fused=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.003, momentum=0.9, centered=True),
}


def steps(model, optimizer, count, seed=0, masks=None):
    """Train; with `masks` (name -> bool) the dense weights stay zero outside. Returns the losses."""
    draw = torch.Generator().manual_seed(seed)
    losses = []
    for _ in range(count):
        x, y = torch.randn(4, 3, 8, 8, generator=draw), torch.randint(10, (4,), generator=draw)
        torch.manual_seed(seed)  # dropout
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        for name, mask in (masks or {}).items():
            model.get_parameter(name).grad.mul_(mask)
        optimizer.step()
        losses.append(loss.item())
    return losses


def masks_of(model):
    return {
        name: p.detach() != 0
        for name, p in model.named_parameters()
        if name in ("conv1.weight", "conv2.weight", "fc.weight")
    }


def assert_same_weights(sparse, dense):
    for name, layer in sparse_layers(sparse).items():
        torch.testing.assert_close(layer.weight, dense.get_parameter(name + ".weight"), rtol=1e-4, atol=1e-5)
    for name, parameter in sparse.named_parameters():
        if not name.endswith("values"):
            torch.testing.assert_close(parameter, dense.get_parameter(name), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_ten_steps_equal_dense(make, net, backend):
    dense, masks = copy.deepcopy(net), masks_of(net)
    sparsify(net, example_input=torch.zeros(1, 3, 8, 8), backend=backend)
    wanted = steps(dense, make(dense.parameters()), 10, masks=masks)
    assert steps(net, make(net.parameters()), 10) == pytest.approx(wanted, rel=1e-4)
    assert_same_weights(net, dense)
    assert torch.equal(net.norm.running_mean, dense.norm.running_mean) or torch.allclose(
        net.norm.running_mean, dense.norm.running_mean, atol=1e-5
    )


@pytest.mark.parametrize("fault", ["forward", "grad_input", "grad_values", "set_values"])
def test_a_wrong_kernel_is_seen_within_ten_steps(fault, net, make_backend):
    dense, masks = copy.deepcopy(net), masks_of(net)
    sparsify(net, example_input=torch.zeros(1, 3, 8, 8), backend=make_backend(fault=fault))
    make = OPTIMIZERS["momentum"]
    wanted = steps(dense, make(dense.parameters()), 10, masks=masks)
    assert steps(net, make(net.parameters()), 10) != pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_the_optimizer_is_handed_over_and_back(make, net, backend):
    """Four dense steps, four sparse ones, two dense ones again."""
    dense, masks = copy.deepcopy(net), masks_of(net)
    steps(dense, twin := make(dense.parameters()), 4, masks=masks)
    steps(dense, twin, 4, seed=1, masks=masks)
    steps(dense, twin, 2, seed=2, masks=masks)

    optimizer = make(net.parameters())
    group = optimizer.param_groups[0]["params"]
    steps(net, optimizer, 4, masks=masks)
    sparsify(net, example_input=torch.zeros(1, 3, 8, 8), backend=backend, optimizer=optimizer, masks=masks)
    assert len(sparse_layers(net)) == 3
    assert optimizer.param_groups[0]["params"] is group
    assert [id(p) for p in group] == [id(p) for p in net.parameters()]
    steps(net, optimizer, 4, seed=1)
    densify(net, optimizer)
    assert {id(p) for p in optimizer.state} <= {id(p) for p in net.parameters()}
    steps(net, optimizer, 2, seed=2, masks=masks)
    assert_same_weights(net, dense)
    for name, parameter in net.named_parameters():
        for key, slot in optimizer.state[parameter].items():
            wanted = twin.state[dense.get_parameter(name)][key]
            if isinstance(slot, torch.Tensor) and name in masks:
                wanted = wanted * masks[name] if slot.dim() else wanted
                torch.testing.assert_close(slot, wanted, rtol=1e-3, atol=1e-5)


def test_a_hand_over_that_forgets_the_slots_is_seen(net, backend, monkeypatch):
    dense, masks = copy.deepcopy(net), masks_of(net)
    make = OPTIMIZERS["momentum"]
    steps(dense, twin := make(dense.parameters()), 4, masks=masks)
    steps(dense, twin, 4, seed=1, masks=masks)

    def forgetful(optimizer, old, new, convert):
        replace_parameter(optimizer, old, new, convert)
        optimizer.state.pop(new, None)

    monkeypatch.setattr("sparsebench.nn.swap.replace_parameter", forgetful)
    optimizer = make(net.parameters())
    steps(net, optimizer, 4, masks=masks)
    sparsify(net, example_input=torch.zeros(1, 3, 8, 8), backend=backend, optimizer=optimizer, masks=masks)
    steps(net, optimizer, 4, seed=1)
    with pytest.raises(AssertionError):
        assert_same_weights(net, dense)


def test_groups_keep_their_order_and_options(net, backend):
    weights, rest = [net.fc.weight, net.conv1.weight], [net.fc.bias]
    optimizer = torch.optim.SGD([{"params": weights, "lr": 0.5}, {"params": rest, "weight_decay": 0.1}], lr=0.1)
    sparsify(net, example_input=torch.zeros(1, 3, 8, 8), backend=backend, optimizer=optimizer)
    first, second = optimizer.param_groups
    assert [id(p) for p in first["params"]] == [id(net.fc.values), id(net.conv1.values)]
    assert (first["lr"], second["weight_decay"]) == (0.5, 0.1)
    assert second["params"][0] is net.fc.bias


def test_the_state_dict_of_the_optimizer_still_loads(net, backend):
    optimizer = torch.optim.Adam(net.named_parameters(), lr=0.01)
    sparsify(net, example_input=torch.zeros(1, 3, 8, 8), backend=backend, optimizer=optimizer)
    steps(net, optimizer, 1)
    names = optimizer.param_groups[0].get("param_names")
    assert names is None or names == [name for name, _ in net.named_parameters()]
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    steps(net, optimizer, 1)


def test_slots_that_cannot_follow_are_refused_before_anything_changes(net, backend):
    optimizer = torch.optim.Adafactor(net.parameters())
    steps(net, optimizer, 1)
    with pytest.raises(UsageError, match="row_var"):
        sparsify(net, example_input=torch.zeros(1, 3, 8, 8), backend=backend, optimizer=optimizer, min_sparsity=0)
    assert not sparse_layers(net)
