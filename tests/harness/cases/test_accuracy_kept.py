"""What a training leaves behind, and what a row may say it ran on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sparsebench.harness.cases import accuracy
from sparsebench.harness.cases.base import Order
from sparsebench.training.checkpoints import load_checkpoint, read_checkpoint

MakeOrder = Callable[..., Order]
Train = Callable[[Order], Any]


def test_models_are_kept_where_they_are_asked_for_and_can_be_loaded_again(
    order_of: MakeOrder, trained: Train, tmp_path: Path
) -> None:
    order = dataclasses.replace(order_of("acdc"), models=str(tmp_path / "kept"))
    job = trained(order)
    assert job.inspect().ok
    names = {"sparse.safetensors", "sparse-csr.safetensors", "dense.safetensors", "dense-csr.safetensors"}
    assert {path.name for path in (tmp_path / "kept").iterdir()} == names
    for name in ("sparse.safetensors", "sparse-csr.safetensors"):
        model = job.first_model()
        load_checkpoint(model, tmp_path / "kept" / name)
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), job.model.parameters(), strict=True))
    dense = read_checkpoint(tmp_path / "kept" / "dense.safetensors")
    assert int((dense["fc2.weight"] == 0).sum()) < int((~job.host.masks["fc2.weight"]).sum())


def test_nothing_is_kept_unless_it_is_asked_for(order_of: MakeOrder, trained: Train, tmp_path: Path) -> None:
    job = trained(order_of("magnitude"))
    assert job.inspect().ok
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_row_is_not_said_to_run_on_a_backend_that_does_none_of_its_layers(order_of: MakeOrder) -> None:
    able, unable = order_of("gmp", backend="honest"), order_of("gmp", backend="honest")
    spec = dataclasses.replace(unable.entries["backend"].spec, ops=("conv2d",))
    entries = {**unable.entries, "backend": dataclasses.replace(unable.entries["backend"], spec=spec)}
    assert accuracy.unsupported(able, None) is None
    reason = accuracy.unsupported(dataclasses.replace(unable, entries=entries), None)
    assert reason is not None
    assert reason.startswith("its backend can do no layer of mlp: ")
    assert "does conv2d, not linear" in reason


def test_the_row_says_how_many_layers_ran_on_kernels(order_of: MakeOrder, trained: Train) -> None:
    assert trained(order_of("gmp", backend="honest", allocator="erk", epochs=1)).note == "2 of 3 layers on honest"
    assert trained(order_of("gmp", epochs=1)).note == ""


def test_a_checkpoint_is_pruned_as_it_came(order_of: MakeOrder, trained: Train) -> None:
    job = trained(order_of("magnitude", epochs=0))
    assert job.inspect().ok
    splits, metrics = job.scores()
    assert metrics["steps"] == 0.0
    assert all(ns >= 0 for ns in splits.values())
    first, mask = dict(job.fresh.named_parameters())["fc2.weight"], job.host.masks["fc2.weight"]
    assert torch.equal(dict(job.model.named_parameters())["fc2.weight"], first * mask)
