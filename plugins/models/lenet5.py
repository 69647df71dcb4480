"""The model `lenet5`: Caffe's LeNet-5, the one of pruning papers (`lenet` is the smaller one of 1998)."""

from __future__ import annotations

from sparsebench.plugin import ModelSpec, hookimpl


@hookimpl
def sparsebench_models() -> list[ModelSpec]:
    """One spec."""
    return [
        ModelSpec(
            name="lenet5",
            summary="Caffe's LeNet-5: convolutions of 20 and 50 maps, linear layers of 500 and the classes",
            load="sparsebench.builtin.models._lenet5:CaffeLeNet5",
            inputs="1x28x28",
        )
    ]
