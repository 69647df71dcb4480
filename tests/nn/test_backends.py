"""Layers over backends by name: every installed one equals dense, and names survive copies and pickles."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from sparsebench.errors import UsageError
from sparsebench.nn import SparseConv2d, SparseLinear, problem_of, sparse_layers, sparsify
from sparsebench.nn.backends import BackendHandle, float32_backends

HERE = [handle.name for handle in float32_backends()]


def assert_same_passes(layer, dense, x):
    kept = dense.weight != 0
    results = []
    for module in (layer, dense):
        module.zero_grad()
        own = x.clone().requires_grad_()
        output = module(own)
        output.square().sum().backward()
        weight = layer.values.grad if module is layer else dense.weight.grad[kept]
        bias = torch.zeros(()) if module.bias is None else module.bias.grad
        results.append((output, own.grad, weight, bias))
    for got, wanted in zip(*results, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize("dense, shape", [
    (nn.Linear(33, 17), (5, 33)),
    (nn.Linear(33, 17), (2, 3, 33)),
    (nn.Conv2d(4, 6, 3, padding=1), (3, 4, 9, 7)),
    (nn.Conv2d(4, 6, 3, stride=2, groups=2, bias=False), (2, 4, 9, 9)),
], ids=["linear", "linear of three dims", "conv2d", "grouped conv2d"])  # fmt: skip
def test_installed_backends_equal_dense(name, dense, shape, prune):
    dense = prune(copy.deepcopy(dense), 0.8)
    x = torch.randn(shape)
    reason = BackendHandle(name).unsupported(problem_of(dense, shape))
    if reason is not None:
        model = sparsify(nn.Sequential(dense), example_input=x, backend=name)
        assert not sparse_layers(model)
        return
    layer = (SparseLinear if isinstance(dense, nn.Linear) else SparseConv2d).from_dense(dense, name)
    assert_same_passes(layer, dense, x)
    with torch.no_grad():
        dense.weight.mul_(2)
        layer.values.mul_(2)
    assert_same_passes(layer, dense, x)


def test_a_pickle_holds_the_name_alone(prune):
    layer = SparseLinear.from_dense(prune(nn.Linear(16, 6)), HERE[0])
    x = torch.randn(3, 16)
    output = layer(x)
    twin = pickle.loads(pickle.dumps(layer))
    assert twin.backend.name == HERE[0]
    assert twin.backend._backend is None
    torch.testing.assert_close(twin(x), output)


def test_names_are_checked_at_once():
    with pytest.raises(UsageError, match="no backend is named"):
        SparseLinear.from_dense(nn.Linear(16, 6), "no-such-thing")
    with pytest.raises(UsageError, match="not an option"):
        SparseLinear.from_dense(nn.Linear(16, 6), f"{HERE[0]}@nonsense=1")


def test_what_the_spec_excludes_is_unsupported(prune):
    double = prune(nn.Linear(16, 6)).double()
    for name in HERE:
        handle = BackendHandle(name)
        if "float64" not in handle._spec.dtypes:
            assert "in float32, not float64" in str(handle.unsupported(problem_of(double, (3, 16))))
