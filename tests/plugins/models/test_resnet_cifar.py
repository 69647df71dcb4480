"""The CIFAR ResNets: the paper's sizes, torchvision's names, and shortcuts of both kinds to the number."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sparsebench.builtin.models._resnet_cifar import PaddedShortcut
from sparsebench.registry import load_registry

COUNTS = {"resnet20-cifar": 269_722, "resnet56-cifar": 853_018, "resnet20-cifar-conv": 272_474}
BLOCKS = {"resnet20-cifar": 3, "resnet56-cifar": 9, "resnet20-cifar-conv": 3}


def built(name: str, classes: int = 10, channels: int = 3) -> Any:
    torch.manual_seed(0)
    return load_registry().models[name].load()(num_classes=classes, in_channels=channels)


@pytest.mark.parametrize("name", COUNTS)
def test_names_and_shapes(name: str) -> None:
    model = built(name)
    shapes = {"conv1.weight": (16, 3, 3, 3), "fc.weight": (10, 64)}
    width = 16
    for stage, channels in enumerate((16, 32, 64), start=1):
        for block in range(BLOCKS[name]):
            place = f"layer{stage}.{block}"
            shapes |= {f"{place}.conv1.weight": (channels, width, 3, 3)}
            shapes |= {f"{place}.conv2.weight": (channels, channels, 3, 3)}
            if width != channels and name.endswith("conv"):
                shapes |= {f"{place}.downsample.0.weight": (channels, width, 1, 1)}
            width = channels
    assert {n: tuple(p.shape) for n, p in model.named_parameters() if p.ndim > 1} == shapes
    assert sum(p.numel() for p in model.parameters()) == COUNTS[name]
    layers = [n for n in shapes if "downsample" not in n]
    assert len(layers) == 6 * BLOCKS[name] + 2


@pytest.mark.parametrize("name", COUNTS)
def test_halves_the_image_twice(name: str) -> None:
    assert load_registry().models[name].spec.inputs == "3x32x32"
    model = built(name, classes=7, channels=1)
    seen: list[tuple[int, ...]] = []
    for stage in (model.layer1, model.layer2, model.layer3):
        stage.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape[1:])))
    with torch.no_grad():
        assert model.eval()(torch.rand(2, 1, 32, 32)).shape == (2, 7)
    assert seen == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]


def test_option_a_takes_every_second_pixel_and_pads_channels_on_both_sides() -> None:
    x = torch.rand(2, 4, 6, 5)
    out = PaddedShortcut(4, 8)(x)
    assert out.shape == (2, 8, 3, 3)
    assert torch.equal(out[:, 2:6], x[:, :, [0, 2, 4]][..., [0, 2, 4]])
    assert float(out[:, :2].abs().sum() + out[:, 6:].abs().sum()) == 0
    assert list(PaddedShortcut(4, 8).parameters()) == []


@pytest.mark.parametrize("name", ["resnet20-cifar", "resnet20-cifar-conv"])
def test_a_block_adds_its_shortcut_before_the_last_relu(name: str) -> None:
    block, x = built(name).eval().layer2[0], torch.randn(2, 16, 8, 8)
    with torch.no_grad():
        block.bn2.weight.zero_()
        assert torch.equal(block(x), torch.relu(block.downsample(x)))
        block.bn2.bias.fill_(1)
        assert torch.equal(block(x), torch.relu(1 + block.downsample(x)))
