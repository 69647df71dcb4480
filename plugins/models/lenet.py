"""The model `lenet`: LeNet-5 on 28x28 images."""

from __future__ import annotations

from sparsebench.plugin import ModelSpec, hookimpl


@hookimpl
def sparsebench_models() -> list[ModelSpec]:
    """One spec."""
    return [
        ModelSpec(
            name="lenet",
            summary="LeNet-5: two convolutions and three linear layers on 28x28 images",
            load="sparsebench.builtin.models._lenet:LeNet5",
            inputs="1x28x28",
        )
    ]
