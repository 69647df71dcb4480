"""LeNet-5: the layer sizes of the paper, for any number of channels and classes."""

from __future__ import annotations

import pytest
import torch

from sparsebench.registry import load_registry


@pytest.mark.parametrize("channels", [1, 3])
def test_shapes_of_the_paper(channels: int) -> None:
    entry = load_registry().models["lenet"]
    model = entry.load()(num_classes=12, in_channels=channels)
    assert {name: tuple(p.shape) for name, p in model.named_parameters() if p.ndim > 1} == {
        "conv1.weight": (6, channels, 5, 5), "conv2.weight": (16, 6, 5, 5),
        "fc1.weight": (120, 400), "fc2.weight": (84, 120), "fc3.weight": (12, 84),
    }  # fmt: skip
    assert entry.spec.inputs == "1x28x28"
    assert model(torch.zeros(2, channels, 28, 28)).shape == (2, 12)
