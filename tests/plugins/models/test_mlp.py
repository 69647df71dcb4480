"""The MLP: shapes, and the contract every model follows."""

from __future__ import annotations

import torch

from sparsebench.builtin.models.mlp import sparsebench_models
from sparsebench.registry import load_registry


def test_spec_loads_a_model_that_takes_flat_features() -> None:
    entry = load_registry().models["mlp"]
    assert [entry.spec] == sparsebench_models()
    model = entry.load()(num_classes=7, in_channels=64)
    assert {name: tuple(p.shape) for name, p in model.named_parameters()} == {
        "fc1.weight": (512, 64), "fc1.bias": (512,), "fc2.weight": (512, 512), "fc2.bias": (512,),
        "fc3.weight": (7, 512), "fc3.bias": (7,),
    }  # fmt: skip
    assert model(torch.zeros(3, 64)).shape == (3, 7)
