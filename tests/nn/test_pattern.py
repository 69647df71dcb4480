"""A new pattern: what stays, what moves, what raises."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sparsebench.errors import ProblemError, UsageError
from sparsebench.nn import SparseLinear

X = torch.linspace(-1, 1, 48).reshape(3, 16)


@pytest.fixture
def layer(backend, prune):
    return SparseLinear.from_dense(prune(nn.Linear(16, 6)), backend)


def assert_right(layer):
    torch.testing.assert_close(layer(X), nn.functional.linear(X, layer.weight, layer.bias))


def test_kept_weights_stay_new_ones_are_zero(layer):
    before, parameter, old = layer.weight.detach(), layer.values, layer.mask()
    new = torch.rand(6, 16) < 0.5
    layer(X).sum().backward()
    grad = SparseLinear.from_dense(layer.to_dense(), layer.backend, mask=old)
    grad.values.data = layer.values.grad.clone()
    layer.set_pattern(new)
    assert layer.values is parameter
    assert torch.equal(layer.weight, before * new)
    assert torch.equal(layer.values.grad, layer.snapshot().gather(grad.weight.detach()))
    assert_right(layer)


def test_csr_parts(layer, backend):
    other = SparseLinear.from_dense(layer.to_dense(), backend, mask=torch.rand(6, 16) < 0.5)
    layer.set_pattern(indptr=other.indptr, indices=other.indices)
    assert torch.equal(layer.mask(), other.mask())


@pytest.mark.parametrize("kept", [0.0, 1.0])
def test_empty_and_full(layer, kept):
    layer.set_pattern(torch.rand(6, 16) < kept)
    assert layer.nnz == 96 * kept
    assert_right(layer)


def test_a_graph_from_before_raises_and_does_no_harm(layer):
    output = layer(X).sum()
    layer.set_pattern(torch.rand(6, 16) < 0.5)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.backward()
    layer(X).sum().backward()  # while the old graph is still alive
    assert layer.values.grad.shape == layer.values.shape


@pytest.mark.parametrize("make", [
    lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    lambda p: torch.optim.Adam(p, lr=0.1, amsgrad=True),
])  # fmt: skip
def test_optimizer_slots_follow(layer, make):
    optimizer = make(layer.parameters())
    for _ in range(2):
        optimizer.zero_grad()
        layer(X).square().sum().backward()
        optimizer.step()
    old = layer.snapshot()
    slots = {
        name: old.with_values(slot).to_dense()
        for name, slot in optimizer.state[layer.values].items()
        if slot.shape == (layer.nnz,)
    }
    new = torch.rand(6, 16) < 0.5
    layer.set_pattern(new, optimizer=optimizer)
    assert slots
    for name, dense in slots.items():
        moved = layer.snapshot().with_values(optimizer.state[layer.values][name]).to_dense()
        assert torch.equal(moved, dense * new), name
    layer(X).square().sum().backward()
    optimizer.step()
    assert_right(layer)


def test_bad_use(layer):
    with pytest.raises(UsageError, match="either"):
        layer.set_pattern()
    with pytest.raises(UsageError, match="either"):
        layer.set_pattern(layer.mask(), indptr=layer.indptr, indices=layer.indices)
    with pytest.raises(ProblemError, match="mask"):
        layer.set_pattern(torch.ones(6, 15, dtype=torch.bool))
    with pytest.raises(ProblemError, match="ascend"):
        layer.set_pattern(indptr=layer.indptr, indices=layer.indices.flip(0))
    assert_right(layer)
