"""The model `mlp-300-100`: LeNet-300-100, on which nearly every pruning paper has a number."""

from __future__ import annotations

from sparsebench.plugin import ModelSpec, hookimpl


@hookimpl
def sparsebench_models() -> list[ModelSpec]:
    """One spec."""
    return [
        ModelSpec(
            name="mlp-300-100",
            summary="LeNet-300-100: hidden layers of 300 and 100 over flat features, in Caffe's names",
            load="sparsebench.builtin.models._mlp_300_100:LeNet300100",
            inputs="features",
        )
    ]
