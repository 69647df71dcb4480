"""The model `resnet18-cifar`: torchvision's ResNet-18 with a stem for 32x32 images."""

from __future__ import annotations

from sparsebench.plugin import ModelSpec, hookimpl


@hookimpl
def sparsebench_models() -> list[ModelSpec]:
    """One spec."""
    return [
        ModelSpec(
            name="resnet18-cifar",
            summary="ResNet-18 for 32x32 images, in torchvision's parameter names",
            load="sparsebench.builtin.models._resnet18_cifar:ResNet18",
            inputs="3x32x32",
        )
    ]
