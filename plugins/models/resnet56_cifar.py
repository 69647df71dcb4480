"""The model `resnet56-cifar`: the deeper ResNet of CIFAR-10, with shortcuts that have no parameters."""

from __future__ import annotations

from sparsebench.plugin import ModelSpec, hookimpl


@hookimpl
def sparsebench_models() -> list[ModelSpec]:
    """One spec."""
    return [
        ModelSpec(
            name="resnet56-cifar",
            summary="ResNet-56 for 32x32 images, shortcuts of option A, 0.85 M parameters",
            load="sparsebench.builtin.models._resnet_cifar:resnet56",
            inputs="3x32x32",
        )
    ]
