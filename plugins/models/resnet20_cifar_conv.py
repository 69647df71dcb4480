"""The model `resnet20-cifar-conv`: ResNet-20 for 32x32 images with shortcuts that are convolutions."""

from __future__ import annotations

from sparsebench.plugin import ModelSpec, hookimpl


@hookimpl
def sparsebench_models() -> list[ModelSpec]:
    """One spec."""
    return [
        ModelSpec(
            name="resnet20-cifar-conv",
            summary="ResNet-20 for 32x32 images, 1x1 convolutions as shortcuts, 0.27 M parameters",
            load="sparsebench.builtin.models._resnet_cifar:resnet20_conv",
            inputs="3x32x32",
        )
    ]
