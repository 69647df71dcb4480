"""What SparseGPT refuses and what it says: shares of a budget, budgets and parameters that cannot be, damping."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparsebench.builtin.methods._sparsegpt import SparseGPT, shares
from sparsebench.errors import BudgetError, UsageError
from sparsebench.pruning.calibration import Calibration
from sparsebench.pruning.contract import Scope
from sparsebench.pruning.host import Host
from sparsebench.registry import load_registry
from sparsebench.testing.methods import Even


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def host_of(model: nn.Module, x: Tensor, sparsity: float, scope: Scope = "layer", **options: Any) -> Host:
    calibration = Calibration(x, torch.zeros(len(x), dtype=torch.long), count=len(x))
    spec = load_registry().methods["sparsegpt"].spec
    return Host(
        model, SparseGPT(), Even(scope), sparsity=sparsity, needs=spec.needs, name="sparsegpt", calibration=calibration,
        parameters={**spec.parameters, **options}, strict=True,
    )  # fmt: skip


def test_shares_are_exact_and_within_their_sizes() -> None:
    for sizes in ([5], [4, 4, 5], [0, 7, 1], [1] * 9):
        for total in range(sum(sizes) + 1):
            made = shares(sizes, total)
            assert sum(made) == total
            assert all(abs(share - total * size / sum(sizes)) < 1 for share, size in zip(made, sizes, strict=True))
            assert all(0 <= share <= size for share, size in zip(made, sizes, strict=True))
    assert shares([3, 3, 3], 4) == [2, 1, 1]


def test_a_singular_hessian_is_said_once_and_counted() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 20), nn.Linear(20, 6))
    host = host_of(model, draw(3, 12), 0.5, damp=0.0)
    host.begin()
    host.finish()
    assert host.notes == ["a singular Hessian was damped by 1e-06 of its mean diagonal, not 0 (2 times)"]


@pytest.mark.parametrize(("name", "value"), [("block", 0), ("block", 2.5), ("damp", -1.0), ("damp", float("nan"))])
def test_parameters_that_cannot_be_are_errors_before_any_work(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"sparsegpt: {name} = {value!r}; use "):
        host_of(nn.Sequential(nn.Linear(8, 4)), draw(3, 8), 0.5, **{name: value}).begin()


def test_budgets_that_cannot_be_are_typed_errors() -> None:
    with pytest.raises(BudgetError, match=r"sparsegpt: .* use the allocator uniform, erk or nm:K:G"):
        host_of(nn.Sequential(nn.Linear(8, 4)), draw(3, 8), 0.5, "model").begin()
    host = host_of(nn.Sequential(nn.Linear(8, 4)), draw(30, 8), 0.5)
    host.begin()
    host.holding.enforce({"0.weight": torch.eye(4, 8, dtype=torch.bool)})
    with pytest.raises(BudgetError, match=r"0\.weight is to keep 16 weights, and 4 are not pruned already"):
        host.finish()
