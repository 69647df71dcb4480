"""LeNet-300-100: Caffe's names, the sizes of the papers, for any number of features and classes."""

from __future__ import annotations

import torch

from sparsebench.registry import load_registry


def test_names_and_sizes_are_those_of_the_papers() -> None:
    entry = load_registry().models["mlp-300-100"]
    model = entry.load()(num_classes=10, in_channels=784)
    assert {name: tuple(p.shape) for name, p in model.named_parameters()} == {
        "ip1.weight": (300, 784), "ip1.bias": (300,), "ip2.weight": (100, 300), "ip2.bias": (100,),
        "ip3.weight": (10, 100), "ip3.bias": (10,),
    }  # fmt: skip
    assert sum(p.numel() for p in model.parameters()) == 266_610
    assert entry.spec.inputs == "features"


def test_takes_other_features_and_classes() -> None:
    model = load_registry().models["mlp-300-100"].load()(num_classes=7, in_channels=64)
    assert model(torch.zeros(3, 64)).shape == (3, 7)


def test_has_a_relu_after_each_hidden_layer() -> None:
    model = load_registry().models["mlp-300-100"].load()(num_classes=10, in_channels=784)
    with torch.no_grad():
        for name in ("ip1", "ip2"):
            model.get_submodule(name).bias.fill_(-1e6)
            assert torch.equal(model(torch.rand(2, 784)), model.ip3.bias.expand(2, 10)) is (name == "ip2")
