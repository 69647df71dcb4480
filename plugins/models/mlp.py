"""The model `mlp`: two wide hidden layers over flat features, the smallest place where sparsity pays."""

from __future__ import annotations

from sparsebench.plugin import ModelSpec, hookimpl


@hookimpl
def sparsebench_models() -> list[ModelSpec]:
    """One spec."""
    return [
        ModelSpec(
            name="mlp",
            summary="two hidden layers of 512 over flat features",
            load="sparsebench.builtin.models._mlp:MLP",
            inputs="features",
        )
    ]
