"""The model `resnet20-cifar`: the small ResNet of CIFAR-10, with shortcuts that have no parameters."""

from __future__ import annotations

from sparsebench.plugin import ModelSpec, hookimpl


@hookimpl
def sparsebench_models() -> list[ModelSpec]:
    """One spec."""
    return [
        ModelSpec(
            name="resnet20-cifar",
            summary="ResNet-20 for 32x32 images, shortcuts of option A, 0.27 M parameters",
            load="sparsebench.builtin.models._resnet_cifar:resnet20",
            inputs="3x32x32",
        )
    ]
