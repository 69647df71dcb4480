"""Statistics are made anew after one-shot pruning, and only kept where the validation part is as well off with them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from sparsebench.pruning.contract import Update
from sparsebench.pruning.host import Host
from sparsebench.registry import load_registry
from sparsebench.training import loop
from sparsebench.training.data import Splits
from sparsebench.training.norms import reestimate_norms
from sparsebench.training.recipe import Recipe


class Half:
    """Prunes half of the weights after training; the same sparsity for every layer."""

    def compress(self, calibration: Any, ctx: Any) -> Update:
        return Update(masks=ctx.select({name: weight.abs() for name, weight in ctx.prunable.items()}))

    def allocate(self, layers: Any, target: float, ctx: Any) -> dict[str, float]:
        return dict.fromkeys(layers, target)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))


@pytest.mark.parametrize(("renewed_is", "kept"), [("better", True), ("as good", True), ("worse", False)])
def test_what_is_as_good_on_the_validation_part_is_kept(
    renewed_is: str, kept: bool, blobs: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = net()
    trainer = loop.Trainer(model, blobs, Recipe(epochs=1), Host(model, Half(), Half(), sparsity=0.5))
    after = {"better": 0.9, "as good": 0.5, "worse": 0.1}[renewed_is]
    seen: list[torch.Tensor] = []

    def renew(model: Any, *_: Any) -> int:
        seen.append(model[1].running_mean.clone())
        model[1].running_mean.fill_(5.0)
        return 1

    monkeypatch.setattr(loop, "reestimate_norms", renew)
    monkeypatch.setattr(trainer, "_validate", lambda: after if bool((model[1].running_mean == 5).all()) else 0.5)
    trainer.run()
    (before,) = seen
    assert torch.equal(model[1].running_mean, torch.full_like(before, 5.0) if kept else before)


def counts_renewals(name: str, blobs: Splits, monkeypatch: pytest.MonkeyPatch) -> int:
    """How often statistics are made anew in a training under a method."""
    count = 0

    def renew(*args: Any) -> int:
        nonlocal count
        count += 1
        return reestimate_norms(*args)

    monkeypatch.setattr(loop, "reestimate_norms", renew)
    registry = load_registry()
    entry, parameters = registry.find("methods", name)
    model = net()
    host = Host(
        model, entry.load()(), registry.create("allocators", "global"), sparsity=0.5, name=name,
        needs=entry.spec.needs, parameters=parameters,
    )  # fmt: skip
    loop.train(model, blobs, Recipe(epochs=2, batch=25), host=host)
    assert host.sparsity_now > 0.4
    return count


@pytest.mark.parametrize(("name", "times"), [("magnitude", 1), ("cram", 1), ("str", 0), ("gmp", 0), ("static", 0)])
def test_they_are_made_anew_where_weights_went_after_the_training(
    name: str, times: int, blobs: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the thresholds of str took in training its masks only say: its statistics fit the sparse model already."""
    assert counts_renewals(name, blobs, monkeypatch) == times
