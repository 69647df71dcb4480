"""Caffe's LeNet-5: its names and sizes, and nothing but pooling after the convolutions."""

from __future__ import annotations

import pytest
import torch

from sparsebench.registry import load_registry


@pytest.mark.parametrize("channels", [1, 3])
def test_names_and_sizes_are_caffe_s(channels: int) -> None:
    entry = load_registry().models["lenet5"]
    model = entry.load()(num_classes=12, in_channels=channels)
    assert {name: tuple(p.shape) for name, p in model.named_parameters()} == {
        "conv1.weight": (20, channels, 5, 5), "conv1.bias": (20,), "conv2.weight": (50, 20, 5, 5), "conv2.bias": (50,),
        "ip1.weight": (500, 800), "ip1.bias": (500,), "ip2.weight": (12, 500), "ip2.bias": (12,),
    }  # fmt: skip
    assert entry.spec.inputs == "1x28x28"
    assert model(torch.zeros(2, channels, 28, 28)).shape == (2, 12)


def test_has_as_many_parameters_as_the_papers_say() -> None:
    model = load_registry().models["lenet5"].load()(num_classes=10, in_channels=1)
    assert sum(p.numel() for p in model.parameters()) == 431_080


def test_what_is_below_zero_passes_the_convolutions() -> None:
    model = load_registry().models["lenet5"].load()(num_classes=10, in_channels=1)
    seen: list[torch.Tensor] = []
    model.ip1.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model.conv2.bias.fill_(-1e3)
        model(torch.rand(2, 1, 28, 28))
    assert float(seen[0].max()) < 0
