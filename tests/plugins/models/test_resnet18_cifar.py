"""ResNet-18 has exactly torchvision's state dict, but for the stem's kernel size."""

from __future__ import annotations

import torch

from sparsebench.registry import load_registry


def torchvision_shapes(classes: int, stem: int) -> dict[str, tuple[int, ...]]:
    """What torchvision.models.resnet18(num_classes=classes).state_dict() holds, with a stem of stem x stem."""
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, stem, stem), **norm("bn1", 64)}
    channels = 64
    for stage, width in enumerate((64, 128, 256, 512), start=1):
        for block in range(2):
            name = f"layer{stage}.{block}"
            shapes |= {f"{name}.conv1.weight": (width, channels, 3, 3), **norm(f"{name}.bn1", width)}
            shapes |= {f"{name}.conv2.weight": (width, width, 3, 3), **norm(f"{name}.bn2", width)}
            if channels != width:
                shapes |= {
                    f"{name}.downsample.0.weight": (width, channels, 1, 1),
                    **norm(f"{name}.downsample.1", width),
                }
            channels = width
    return {**shapes, "fc.weight": (classes, 512), "fc.bias": (classes,)}


def norm(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    leaves = ("weight", "bias", "running_mean", "running_var")
    return {**{f"{name}.{leaf}": (channels,) for leaf in leaves}, f"{name}.num_batches_tracked": ()}


def test_names_and_shapes_are_torchvision_s() -> None:
    model = load_registry().models["resnet18-cifar"].load()(num_classes=10, in_channels=3)
    assert {name: tuple(t.shape) for name, t in model.state_dict().items()} == torchvision_shapes(10, stem=3)
    assert (
        sum(p.numel() for p in model.parameters()) == 11_173_962
    )  # 11,689,512 of torchvision's, less stem and classes


def test_keeps_resolution_in_the_stem_and_halves_it_three_times() -> None:
    model = load_registry().models["resnet18-cifar"].load()(num_classes=10, in_channels=1)
    seen: list[tuple[int, ...]] = []
    model.layer4.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape)))
    with torch.no_grad():
        assert model.eval()(torch.zeros(1, 1, 32, 32)).shape == (1, 10)
    assert seen == [(1, 512, 4, 4)]
