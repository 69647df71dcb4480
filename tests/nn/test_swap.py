"""sparsify and densify: which layers are exchanged, what they carry over, and that nothing else changes."""

from __future__ import annotations

import copy
import logging

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils import prune as torch_prune

from sparsebench.errors import UnsupportedError, UsageError
from sparsebench.nn import SparseConv2d, SparseLinear, choose, densify, sparse_layers, sparsify

X = torch.linspace(-1, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8)
V = torch.linspace(-1, 1, 48).reshape(3, 16)


def reasons(model, x, backend, **options):
    return {
        choice.names[0]: None if choice.backend else choice.reason
        for choice in choose(model, example_input=x, backend=backend, **options)
    }


def test_a_named_backend_replaces_all_layers_in_place(net, backend):
    dense = copy.deepcopy(net).eval()
    assert sparsify(net, example_input=X, backend=backend) is net
    assert list(sparse_layers(net)) == ["conv1", "conv2", "fc"]
    assert net.training
    torch.testing.assert_close(net.eval()(X), dense(X))
    assert list(net.state_dict()) != list(dense.state_dict())
    assert densify(net) is net
    assert not sparse_layers(net)
    assert repr(net) == repr(dense)
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, dense.state_dict()[name]), name


def test_a_wrong_backend_is_seen(net, make_backend):
    dense = copy.deepcopy(net).eval()
    sparsify(net, example_input=X, backend=make_backend(fault="forward"))
    with pytest.raises(AssertionError):
        torch.testing.assert_close(net.eval()(X), dense(X))


def test_the_example_leaves_no_trace(net, backend):
    net.fc.eval()
    flags = {name: module.training for name, module in net.named_modules()}
    state, random = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    choose(net, example_input=X, backend=backend)
    assert {name: module.training for name, module in net.named_modules()} == flags
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(tensor, state[name]) for name, tensor in net.state_dict().items())
    assert not any(module._forward_pre_hooks for module in net.modules())


def test_the_problem_is_that_of_the_layer_and_its_input(net, backend):
    problems = {c.names[0]: c.problem for c in choose(net, example_input=X, backend=backend)}
    assert problems["conv2"].input_shape == (2, 8, 8, 8)
    assert (problems["conv2"].groups, problems["conv2"].stride, problems["conv2"].bias) == (2, (2, 2), True)
    assert problems["fc"].input_shape == (2, 72)
    assert problems["fc"].sparsity == pytest.approx(float((net.fc.weight == 0).float().mean()))


def test_min_sparsity_holds_for_every_backend(net, backend):
    with torch.no_grad():
        net.fc.weight.fill_(1.0)
    assert "sparsity 0 is under 0.5" in reasons(net, X, backend)["fc"]
    assert "under 0.99" in reasons(net, X, backend, min_sparsity=0.99)["conv1"]
    assert set(reasons(net, X, backend, min_sparsity=0).values()) == {None}
    with pytest.raises(UsageError, match="min_sparsity"):
        sparsify(net, example_input=X, backend=backend, min_sparsity=90)


def test_masks_name_the_layer_or_its_weight(net, backend):
    masks = {"conv1": torch.rand(8, 3, 3, 3) < 0.4, "fc.weight": torch.zeros(10, 72, dtype=torch.bool)}
    sparsify(net, example_input=X, backend=backend, masks=masks)
    assert torch.equal(net.conv1.mask(), masks["conv1"])
    assert net.fc.nnz == 0
    net(X).sum().backward()


def test_a_misspelt_mask_is_refused(net, backend):
    with pytest.raises(UsageError, match=r"'conv'; did you mean 'conv\d'"):
        sparsify(net, example_input=X, backend=backend, masks={"conv": net.conv1.weight != 0})
    assert not sparse_layers(net)


def test_a_mask_of_the_wrong_kind_is_refused_before_anything_changes(net, backend):
    with pytest.raises(UsageError, match="must be bool"):
        sparsify(net, example_input=X, backend=backend, masks={"fc": torch.ones(10, 72)})
    with pytest.raises(UsageError, match="must be bool"):
        sparsify(net, example_input=X, backend=backend, masks={"fc": torch.ones(10, 71, dtype=torch.bool)})
    assert not sparse_layers(net)


def test_what_a_backend_does_not_support_stays_dense(net, make_backend, caplog):
    with caplog.at_level(logging.INFO, logger="sparsebench.nn"):
        sparsify(net, example_input=X, backend=make_backend(refuses="not today"))
    assert not sparse_layers(net)
    assert "conv1: Backend: not today" in caplog.text


def test_an_unknown_backend_is_a_usage_error(net):
    with pytest.raises(UsageError, match="no backend is named 'torch-dence'"):
        sparsify(net, example_input=X, backend="torch-dence")


def test_hooks_flags_gradients_and_attributes_are_carried_over(prune, backend):
    model = nn.Sequential(prune(nn.Linear(16, 6)))
    dense, seen = model[0], []
    handle = dense.register_forward_hook(lambda module, args, output: seen.append(type(module)))
    dense.register_full_backward_hook(lambda *_: seen.append("backward"))
    dense.comment = "mine"
    dense.weight.requires_grad_(False)
    dense.bias.grad = torch.ones(6)
    sparsify(model, example_input=V, backend=backend)
    layer, seen[:] = model[0], []
    layer(V.clone().requires_grad_()).sum().backward()
    assert seen == [SparseLinear, "backward"]
    handle.remove()
    layer(V)
    assert seen == [SparseLinear, "backward"]
    assert layer.comment == "mine"
    assert not layer.values.requires_grad
    assert layer.bias is dense.bias
    densify(model)
    assert model[0].comment == "mine"
    assert not model[0].weight.requires_grad
    assert model[0]._backward_hooks


def test_gradients_so_far_are_carried_over(prune, backend):
    model = nn.Sequential(prune(nn.Linear(16, 6)))
    kept = model[0].weight != 0
    model(V).square().sum().backward()
    grad = model[0].weight.grad
    sparsify(model, example_input=V, backend=backend)
    assert torch.equal(model[0].values.grad, grad[kept])
    densify(model)
    assert torch.equal(model[0].weight.grad, grad * kept)


def test_a_lone_layer_is_returned_as_its_twin(prune, backend):
    sparse = sparsify(prune(nn.Linear(16, 6)), example_input=V, backend=backend)
    assert type(sparse) is SparseLinear
    assert type(densify(sparse)) is nn.Linear


def test_a_layer_at_two_places_stays_one_layer(prune, backend):
    shared = prune(nn.Linear(16, 16))
    model = nn.Sequential(shared, nn.ReLU(), shared, nn.ModuleDict({"again": shared}))
    wanted = shared(torch.relu(shared(V)))
    model.forward = lambda x: model[2](model[1](model[0](x)))
    sparsify(model, example_input=V, backend=backend)
    assert type(model[0]) is SparseLinear
    assert model[0] is model[2] is model[3]["again"]
    torch.testing.assert_close(model(V), wanted)
    densify(model)
    assert type(model[0]) is nn.Linear
    assert model[0] is model[2] is model[3]["again"]


def test_tied_weights_stay_dense(prune, backend):
    model = prune(nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 16)))
    model[2].weight = model[0].weight
    found = reasons(model, V, backend)
    assert "shared" in found["0"]
    assert "shared" in found["2"]
    assert found["1"] is None


class Scaled(nn.Linear):
    def forward(self, input):
        return 2 * super().forward(input)


def test_what_is_not_a_plain_layer_stays_dense(prune, backend):
    model = prune(nn.Sequential(*(nn.Linear(16, 16) for _ in range(6)), Scaled(16, 16)))
    torch_prune.random_unstructured(model[0], "weight", 0.5)
    parametrizations.weight_norm(model[1])
    model[2].register_state_dict_pre_hook(lambda *_: None)
    model[3].weight.register_hook(lambda grad: grad)
    model[4].forward = lambda x: x
    found = reasons(model, V, backend)
    assert set(found) == {"0", "2", "3", "4", "5"}  # the others are of other types
    assert "reparametrized" in found["0"]
    assert "state_dict hooks" in found["2"]
    assert "tensor hooks" in found["3"]
    assert "forward of its own" in found["4"]
    assert found["5"] is None


def test_a_layer_that_is_not_reached_stays_dense(net, prune, backend):
    net.spare = prune(nn.Linear(16, 16))
    assert "does not reach" in reasons(net, X, backend)["spare"]


@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_padding_that_no_kernel_knows_stays_dense(prune, backend):
    model = prune(
        nn.Sequential(nn.Conv2d(3, 4, 3, padding_mode="reflect", padding=1), nn.Conv2d(4, 4, 2, padding="same"))
    )
    found = reasons(model, X, backend)
    assert "reflect" in found["0"]
    assert "one side" in found["1"]


def test_other_dtypes_stay_dense_and_other_devices_are_an_error(prune, backend):
    model = nn.Sequential(prune(nn.Linear(16, 6)).bfloat16())
    assert "bfloat16" in reasons(model, V.bfloat16(), backend)["0"]
    with pytest.raises(UnsupportedError, match="meta"):
        sparsify(nn.Linear(16, 6, device="meta"), example_input=V, backend=backend)


def test_example_inputs_of_several_arguments(prune, backend):
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = prune(nn.Linear(16, 6)), prune(nn.Linear(16, 6))

        def forward(self, a, b):
            return self.left(a) + self.right(input=b)

    assert len(sparse_layers(sparsify(Sum(), example_input=(V, V), backend=backend))) == 2
    model = sparsify(Sum(), example_input={"a": V, "b": V}, backend=backend)
    assert len(sparse_layers(model)) == 2


def test_a_transformer_in_eval_mode(prune, backend):
    model = prune(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)).eval()
    x = torch.randn(2, 5, 16)
    with torch.no_grad():
        wanted = model(x)
        sparsify(model, example_input=x, backend=backend)
        torch.testing.assert_close(model(x), wanted)
    assert list(sparse_layers(model)) == ["linear1", "linear2"]


def test_a_sparse_model_again(net, backend, make_backend):
    sparsify(net, example_input=X, backend=backend)
    first = sparse_layers(net)
    sparsify(net, example_input=X, backend=make_backend())
    assert sparse_layers(net) == first
    assert isinstance(net.conv1, SparseConv2d)
