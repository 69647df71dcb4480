"""What is state and what is not: copies, pickles, checkpoints, other patterns, and when values reach the kernel."""

from __future__ import annotations

import copy
import io
import pickle
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from sparsebench.errors import UnsupportedError
from sparsebench.nn import SparseConv2d, SparseLinear

X = torch.linspace(-1, 1, 48).reshape(3, 16)


@pytest.fixture
def layer(backend, prune):
    return SparseLinear.from_dense(prune(nn.Linear(16, 6)), backend)


def assert_right(layer):
    torch.testing.assert_close(layer(X), nn.functional.linear(X, layer.weight, layer.bias))


def test_parameters_and_buffers_are_exactly_these(layer):
    layer(X)
    assert [name for name, _ in layer.named_parameters()] == ["values", "bias"]
    assert [name for name, _ in layer.named_buffers()] == ["indptr", "indices"]
    assert list(layer.state_dict()) == ["values", "bias", "indptr", "indices"]
    assert layer.indptr.dtype == layer.indices.dtype == torch.int32


@pytest.mark.parametrize("way", [copy.deepcopy, copy.copy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_bind_anew(way, layer, backend):
    layer(X)
    twin = way(layer)
    assert twin._binding is None
    with torch.no_grad():
        twin.values.data = twin.values.data * 2
    assert_right(twin)
    assert_right(layer)


def test_copies_share_the_backend_but_not_the_kernel(layer, backend):
    layer(X)
    twin = copy.deepcopy(layer)
    twin(X)
    assert twin.backend.backend is backend
    assert twin._binding is not layer._binding
    assert len(backend.bound) == 2


def test_a_checkpoint_loads_with_weights_only(layer, backend):
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other = SparseLinear.from_dense(nn.Linear(16, 6), backend)
    other(X)
    parameter = other.values
    other.load_state_dict(torch.load(file, weights_only=True))
    assert other.values is parameter
    assert other.nnz == layer.nnz
    torch.testing.assert_close(other(X), layer(X))
    other(X).sum().backward()
    assert other.values.grad.shape == (layer.nnz,)


@pytest.mark.parametrize("assign", [False, True])
def test_load_state_dict_with_the_same_pattern_and_with_another_of_the_same_size(layer, backend, assign):
    other = copy.deepcopy(layer).eval()
    with torch.no_grad():
        other(X)
        other.load_state_dict({**layer.state_dict(), "values": layer.values.detach() + 1}, assign=assign)
        assert_right(other)
        moved = layer.mask().flip(1)
        twin = SparseLinear.from_dense(layer.to_dense(), backend, mask=moved)
        other.load_state_dict(twin.state_dict(), assign=assign)
        assert_right(other)
    assert torch.equal(other.mask(), moved)


def test_a_pattern_that_cannot_be_is_not_loaded(layer):
    before = layer.state_dict()
    bad = {**before, "indices": before["indices"].flip(0)}
    kept = layer.indices.clone()
    with pytest.raises(RuntimeError, match="ascend"):
        layer.load_state_dict(bad)
    with pytest.raises(RuntimeError, match="one value for each"):
        layer.load_state_dict({"values": before["values"][1:]}, strict=False)
    assert torch.equal(layer.indices, kept)
    assert_right(layer)


def test_conversion_binds_anew(layer):
    layer(X)
    layer.double()
    assert layer.indices.dtype == torch.int32
    output = layer(X.double())
    assert output.dtype == torch.float64
    torch.testing.assert_close(output, nn.functional.linear(X.double(), layer.weight, layer.bias))


def test_with_gradients_every_forward_takes_the_values(layer, backend):
    layer.eval()
    for _ in range(3):
        layer.values.data.mul_(2)  # moves no version
        assert_right(layer)
    assert backend.calls.count("set_values") == 3


def test_in_eval_without_gradients_the_kernel_keeps_its_values_until_told(layer, backend):
    layer.eval()
    with torch.no_grad():
        layer(X)
        taken = backend.calls.count("set_values")
        before = layer(X)
        layer.values.data.mul_(2)
        assert torch.equal(layer(X), before)
        assert backend.calls.count("set_values") == taken
        for tell in (layer.refresh, layer.eval, lambda: layer.load_state_dict(layer.state_dict())):
            layer.values.data.mul_(2)
            tell()
            assert_right(layer)


def test_values_that_are_ignored_are_seen(make_backend, prune):
    layer = SparseLinear.from_dense(prune(nn.Linear(16, 6)), make_backend(fault="set_values"))
    layer(X)
    layer.values.data.mul_(2)
    with pytest.raises(AssertionError):
        assert_right(layer)


def test_a_fused_step_between_evaluations_in_eval_mode(layer):
    layer.eval()
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1, fused=True)
    for _ in range(3):
        layer(X).square().sum().backward()
        optimizer.step()
        with torch.no_grad():
            assert_right(layer)


def test_training_mode_without_gradients_takes_the_values(layer):
    layer.train()
    with torch.no_grad():
        for _ in range(2):
            layer.values.data.mul_(2)
            assert_right(layer)


def test_other_tensors_in_place_of_values_are_noticed(layer):
    layer.eval()
    with torch.no_grad():
        assert_right(layer)
        output = torch.func.functional_call(layer, {"values": layer.values * 2}, (X,))
        torch.testing.assert_close(output, nn.functional.linear(X, 2 * layer.weight, layer.bias))
        assert_right(layer)


def test_a_kernel_is_used_by_one_thread_at_a_time(layer, backend):
    inside, most = [], []
    layer.eval()
    with torch.no_grad():
        layer(X)
    kernel = layer._binding._kernel
    forward = kernel.forward

    def watched(*args):
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.002)
        inside.pop()
        return forward(*args)

    kernel.forward = watched

    def run(_):
        with torch.no_grad():  # of each thread
            return layer(X)

    with ThreadPoolExecutor(4) as pool:
        outputs = list(pool.map(run, range(12)))
    assert max(most) == 1
    assert all(torch.equal(output, outputs[0]) for output in outputs)


def test_inference_mode_then_training(layer):
    with torch.inference_mode():
        layer.eval()(X)
        layer.refresh()
        layer(X)
    layer.train()
    layer(X).sum().backward()
    assert_right(layer)


def test_a_change_in_place_between_the_passes_raises(layer):
    output = layer(X)
    with torch.no_grad():
        layer.values.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


def test_a_second_backward_needs_a_retained_graph(make_backend, prune):
    layer = SparseLinear.from_dense(prune(nn.Linear(16, 6)), make_backend(saving=True))
    output = layer(X).sum()
    output.backward(retain_graph=True)
    once = layer.values.grad.clone()
    output.backward()
    assert torch.equal(layer.values.grad, 2 * once)
    with pytest.raises(RuntimeError, match="second time"):
        output.backward()


def test_double_backward_is_a_typed_error(layer):
    x = X.clone().requires_grad_()
    (grad,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    torch.testing.assert_close(grad, 2 * layer(X) @ layer.weight)
    with pytest.raises(UnsupportedError, match="second derivative"):
        grad.sum().backward()


def test_conv2d_keeps_its_state_too(backend, prune):
    layer = SparseConv2d.from_dense(prune(nn.Conv2d(4, 8, 3, groups=2)), backend)
    other = SparseConv2d.from_dense(nn.Conv2d(4, 8, 3, groups=2), backend)
    x = torch.randn(2, 4, 6, 5)
    other(x)
    other.load_state_dict(layer.state_dict())
    torch.testing.assert_close(pickle.loads(pickle.dumps(other))(x), layer(x))
