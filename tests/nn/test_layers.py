"""Sparse layers against their dense twins: outputs, gradients, shapes, layouts."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from sparsebench.errors import PluginError, ProblemError, UnsupportedError, UsageError
from sparsebench.nn import SparseConv2d, SparseLinear

CONVS = {
    "plain": {"kernel_size": 3},
    "1x1": {"kernel_size": 1},
    "stride": {"kernel_size": 3, "stride": 2, "padding": 1},
    "uneven": {"kernel_size": (3, 2), "stride": (1, 2), "padding": (0, 1), "dilation": (2, 1)},
    "groups": {"kernel_size": 3, "padding": 1, "groups": 2},
    "depthwise": {"kernel_size": 3, "padding": "same", "groups": 4},
    "valid": {"kernel_size": 2, "padding": "valid", "bias": False},
    "same dilated": {"kernel_size": (2, 3), "dilation": 2, "padding": "same"},
}


def twins(dense, backend):
    kind = SparseLinear if isinstance(dense, nn.Linear) else SparseConv2d
    return copy.deepcopy(dense), kind.from_dense(dense, backend)


def results(layer, x, grad_output=None):
    """Output and the gradients of x, weight (inside the pattern) and bias."""
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    output = layer(x)
    output.backward(torch.ones_like(output) if grad_output is None else grad_output)
    weight = layer.values.grad if hasattr(layer, "values") else layer.weight.grad[layer.weight != 0]
    bias = torch.zeros(()) if layer.bias is None else layer.bias.grad
    return output.detach(), x.grad, weight, bias


def assert_equal_to_dense(dense, backend, x):
    dense, sparse = twins(dense, backend)
    grad_output = torch.randn(dense(x).shape)
    for got, wanted in zip(results(sparse, x, grad_output), results(dense, x, grad_output), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", CONVS.values(), ids=CONVS)
@pytest.mark.parametrize("layout", ["nchw", "channels-last", "strided", "expanded"])
def test_conv2d_equals_dense(options, layout, backend, prune):
    x = torch.randn(2, 4, 9, 7)
    x = {
        "nchw": x,
        "channels-last": x.contiguous(memory_format=torch.channels_last),
        "strided": torch.randn(2, 8, 9, 14)[:, ::2, :, ::2],
        "expanded": x[:1].expand(2, -1, -1, -1),
    }[layout]
    assert_equal_to_dense(prune(nn.Conv2d(4, 8, **options)), backend, x)


@pytest.mark.parametrize("shape", [(16,), (5, 16), (2, 3, 16), (2, 1, 3, 16), (1, 16), (0, 16), (2, 0, 16)])
def test_linear_equals_dense(shape, backend, prune):
    assert_equal_to_dense(prune(nn.Linear(16, 6)), backend, torch.randn(shape))


@pytest.mark.parametrize("shape", [(4, 6, 5), (0, 4, 6, 5)])
def test_conv2d_without_batch_and_with_an_empty_one(shape, backend, prune):
    assert_equal_to_dense(prune(nn.Conv2d(4, 8, 3)), backend, torch.randn(shape))


def test_an_empty_batch_does_not_reach_the_kernel(backend, prune):
    layer = SparseLinear.from_dense(prune(nn.Linear(16, 6)), backend)
    layer(torch.randn(0, 16)).sum().backward()
    assert backend.calls == []
    assert torch.equal(layer.values.grad, torch.zeros(layer.nnz))


@pytest.mark.parametrize("options", [{"saving": True}, {"dense_grad": True}, {"memory_format": "channels-last"}])
@pytest.mark.parametrize("dense", [nn.Linear(16, 6), nn.Conv2d(4, 8, 3)], ids=["linear", "conv2d"])
def test_optional_parts_of_the_kernel_protocol(dense, options, make_backend, prune):
    x = torch.randn(3, 16) if isinstance(dense, nn.Linear) else torch.randn(2, 4, 6, 5)
    backend = make_backend(**options)
    assert_equal_to_dense(prune(copy.deepcopy(dense)), backend, x)
    assert ("backward ++ saved" in backend.calls) == ("saving" in options)


@pytest.mark.parametrize("fault", ["forward", "grad_input", "grad_values"])
@pytest.mark.parametrize("dense", [nn.Linear(16, 6), nn.Conv2d(4, 8, 3)], ids=["linear", "conv2d"])
def test_a_flipped_sign_is_seen(dense, fault, make_backend, prune):
    x = torch.randn(3, 16) if isinstance(dense, nn.Linear) else torch.randn(2, 4, 6, 5)
    with pytest.raises(AssertionError, match="not close"):
        assert_equal_to_dense(prune(copy.deepcopy(dense)), make_backend(fault=fault), x)


def test_only_the_gradients_that_are_needed_are_asked_for(backend, prune):
    layer = SparseLinear.from_dense(prune(nn.Linear(16, 6)), backend)
    layer(torch.randn(3, 16)).sum().backward()
    layer.values.requires_grad_(False)
    layer(torch.randn(3, 16, requires_grad=True)).sum().backward()
    layer(torch.randn(3, 16)).sum().backward()  # the bias alone, which is the host's
    assert [call for call in backend.calls if call.startswith("backward")] == ["backward -+", "backward +-"]


def test_gradients_accumulate(backend, prune):
    dense, sparse = twins(prune(nn.Linear(16, 6)), backend)
    for _ in range(3):
        x = torch.randn(4, 16)
        dense(x).square().sum().backward()
        sparse(x).square().sum().backward()
    torch.testing.assert_close(sparse.values.grad, dense.weight.grad[dense.weight != 0])
    torch.testing.assert_close(sparse.bias.grad, dense.bias.grad)


def test_each_backward_uses_the_values_of_its_own_forward(backend, prune):
    layer = SparseLinear.from_dense(prune(nn.Linear(16, 6, bias=False)), backend)
    x = torch.randn(4, 16, requires_grad=True)
    doubled = {"values": layer.values.detach() * 2}
    first = layer(x)
    second = torch.func.functional_call(layer, doubled, (x,))
    once = torch.autograd.grad(first.sum(), x)[0]
    twice = torch.autograd.grad(second.sum(), x)[0]
    torch.testing.assert_close(2 * once, twice)
    torch.testing.assert_close(once, layer.weight.detach().sum(0).expand(4, -1))


def test_float64_and_gradcheck(backend, prune):
    layer = SparseConv2d.from_dense(prune(nn.Conv2d(2, 3, 2).double()), backend)
    x = torch.randn(2, 2, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, values: torch.func.functional_call(layer, {"values": values}, (x,)),
                                    (x, layer.values.detach().clone().requires_grad_()))  # fmt: skip


def test_the_weight_is_a_dense_copy_that_autograd_knows(backend, prune):
    dense, sparse = twins(prune(nn.Conv2d(4, 8, 3)), backend)
    assert torch.equal(sparse.weight, dense.weight)
    sparse.weight.square().sum().backward()
    torch.testing.assert_close(sparse.values.grad, 2 * sparse.values.detach())
    with torch.no_grad():
        sparse.weight.zero_()
    assert torch.equal(sparse.weight, dense.weight)


def test_a_mask_keeps_explicit_zeros(backend):
    dense = nn.Linear(4, 3)
    with torch.no_grad():
        dense.weight[0, 0] = 0
    mask = torch.zeros(3, 4, dtype=torch.bool)
    mask[:, 0] = True
    sparse = SparseLinear.from_dense(dense, backend, mask=mask)
    assert sparse.nnz == 3
    assert sparse.sparsity == 0.75
    assert torch.equal(sparse.mask(), mask)
    assert torch.equal(sparse.weight, dense.weight * mask)


def test_to_dense_gives_the_same_layer_back(backend, prune):
    dense = prune(nn.Conv2d(4, 8, (3, 2), stride=2, padding="valid", dilation=2, groups=2, bias=False)).eval()
    dense.weight.requires_grad_(False)
    state = torch.get_rng_state()
    back = SparseConv2d.from_dense(dense, backend).to_dense()
    assert torch.equal(torch.get_rng_state(), state)
    assert repr(back) == repr(dense)
    assert torch.equal(back.weight, dense.weight)
    assert (back.training, back.weight.requires_grad, back.bias) == (False, False, None)


def test_repr_says_shape_sparsity_and_backend(backend, prune):
    text = repr(SparseLinear.from_dense(prune(nn.Linear(16, 6)), backend))
    assert "in_features=16, out_features=6" in text
    assert "sparsity=0." in text
    assert "backend=Backend" in text
    assert "kernel_size=(3, 3)" in repr(SparseConv2d.from_dense(prune(nn.Conv2d(4, 8, 3)), backend))


@pytest.mark.parametrize("name", ["reflect", "replicate", "circular"])
def test_other_padding_modes_are_refused(name, backend):
    with pytest.raises(UnsupportedError, match=name):
        SparseConv2d.from_dense(nn.Conv2d(4, 4, 3, padding=1, padding_mode=name), backend)


def test_uneven_same_padding_is_refused(backend):
    with pytest.raises(UnsupportedError, match="one side more"):
        SparseConv2d.from_dense(nn.Conv2d(4, 4, 2, padding="same"), backend)


def test_bad_use_is_a_typed_error(backend, make_backend):
    linear, conv = nn.Linear(16, 6), nn.Conv2d(4, 8, 3)
    with pytest.raises(UsageError, match=r"nn\.Linear"):
        SparseLinear.from_dense(conv, backend)
    with pytest.raises(UsageError, match="neither a name nor"):
        SparseLinear.from_dense(linear, 3)
    with pytest.raises(ProblemError, match="mask"):
        SparseLinear.from_dense(linear, backend, mask=torch.ones(6, 15, dtype=torch.bool))
    with pytest.raises(UnsupportedError, match="meta"):
        SparseLinear.from_dense(nn.Linear(2, 2, device="meta"), backend)
    with pytest.raises(ProblemError, match="bfloat16"):
        SparseLinear.from_dense(nn.Linear(2, 2).bfloat16(), backend)
    with pytest.raises(ProblemError, match="16 features"):
        SparseLinear.from_dense(linear, backend)(torch.randn(3, 15))
    with pytest.raises(ProblemError, match="float64"):
        SparseLinear.from_dense(linear, backend)(torch.randn(3, 16).double())
    with pytest.raises(ProblemError, match="4, H, W"):
        SparseConv2d.from_dense(conv, backend)(torch.randn(1, 3, 8, 8))
    with pytest.raises(ProblemError, match="enlarge"):
        SparseConv2d.from_dense(conv, backend)(torch.randn(1, 4, 2, 8))
    with pytest.raises(UnsupportedError, match=r"too wide.*another backend"):
        SparseLinear.from_dense(linear, make_backend(refuses="too wide"))(torch.randn(3, 16))


def test_a_result_of_the_wrong_shape_is_a_plugin_error(backend, monkeypatch):
    layer = SparseLinear.from_dense(nn.Linear(16, 6), backend)
    layer(torch.randn(3, 16))
    monkeypatch.setattr(layer._binding._kernel, "forward", lambda x, bias: torch.zeros(3, 5), raising=False)
    with pytest.raises(PluginError, match=r"\(3, 5\) as an output.*\(3, 6\)"):
        layer(torch.randn(3, 16))


def test_the_kernel_is_bound_to_what_it_will_meet(backend, prune):
    layer = SparseConv2d.from_dense(prune(nn.Conv2d(4, 8, 3, stride=2)), backend)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        layer(torch.randn(5, 4, 9, 7))
        torch.set_num_threads(2)
        layer(torch.randn(6, 4, 9, 7))
    finally:
        torch.set_num_threads(threads)
    first, second = backend.bound
    assert first.input_shape == (5, 4, 9, 7)
    assert (first.stride, first.bias, first.threads, second.threads) == ((2, 2), True, 1, 2)
    assert first.sparsity == pytest.approx(layer.sparsity)
