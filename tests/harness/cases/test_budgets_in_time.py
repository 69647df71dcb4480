"""Budgets that are read off trained weights are there when a method prunes: before training, if it is gradual."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sparsebench.errors import UsageError
from sparsebench.harness.cases import accuracy
from sparsebench.harness.cases.base import Order
from sparsebench.harness.cases.speedup import decides_after, is_late
from sparsebench.training.checkpoints import save_checkpoint

MakeOrder = Callable[..., Order]
SPDY = {"allocator": "spdy@inits=2,patience=1,images=16", "sparsity": 0.5, "calibration": 64}
FEW = "gradients=8,block=16"


@pytest.mark.parametrize(
    ("method", "after"),
    [
        ("magnitude", True), ("woodfisher", True), ("m-fac", True), ("woodfisher@gradual=false", True),
        ("woodfisher@gradual=true", False), ("m-fac@gradual=true", False), ("gmp", False),
    ],
)  # fmt: skip
def test_who_prunes_in_training_does_not_decide_after_it(order_of: MakeOrder, method: str, after: bool) -> None:
    assert decides_after(order_of(method)) is after
    assert is_late(order_of(method, **SPDY)) is after
    assert not is_late(order_of(method)), "how much a layer keeps under uniform is known of any weights"


def is_there_for_the_schedule(order: Order, late: Callable[[Order], bool]) -> None:
    """Steps on the way to the case's sparsity, and a profile of SPDY's at its end, once training begins."""
    model, splits = accuracy.build_dense(order)
    host = accuracy.host_of(order, model, splits, late=late(order))
    host.begin(2, 10)
    assert host.sparsity == 0.5
    assert max(host.method._schedule.values()) == 0.5
    shares = {name: 1 - kept / host.masks[name].numel() for name, kept in host.ctx.budgets().layers.items()}
    assert min(shares.values()) == 0, "SPDY leaves the ends dense"
    assert max(shares.values()) > 0.5


def by_kind_alone(order: Order) -> bool:
    """The fault: gradual=true is of the kind one-shot, and its schedule would be one to the sparsity 0."""
    return order.entries["method"].spec.kind == "one-shot"


@pytest.mark.parametrize("method", ["woodfisher", "m-fac"])
def test_a_gradual_variant_has_its_budget_before_training(order_of: MakeOrder, method: str) -> None:
    order = order_of(f"{method}@gradual=true,updates=2,{FEW}", **SPDY)
    is_there_for_the_schedule(order, is_late)
    with pytest.raises(AssertionError):
        is_there_for_the_schedule(order, by_kind_alone)


def test_so_it_must_be_given_weights_that_are_trained(
    order_of: MakeOrder, trained: Callable[[Order], Any], tmp_path: Any
) -> None:
    with pytest.raises(UsageError, match="woodfisher asks for budgets before they are trained; give the case a check"):
        accuracy.unsupported(order_of(f"woodfisher@gradual=true,{FEW}", **SPDY), None)
    dense, file = trained(order_of("dense", sparsity=0.0, epochs=1)), tmp_path / "dense.safetensors"
    save_checkpoint(dense.model.state_dict(), file)
    job = trained(order_of(f"woodfisher@gradual=true,updates=2,{FEW}", checkpoint=str(file), **SPDY))
    assert not job.host.late
    assert job.host.updates == 3
    assert job.host.sparsity_now == pytest.approx(0.5, abs=1e-3)
