"""CrAM's levels and its other parameters: read, and refused before any work starts."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sparsebench.builtin.methods._cram import CrAM
from sparsebench.errors import BudgetError, UsageError
from sparsebench.pruning.host import Host


@pytest.mark.parametrize("options", ["rho=-0.1", "rho=nan", "rho=inf"])
def test_a_perturbation_that_cannot_be(options: str, host_of: Callable[..., Host]) -> None:
    with pytest.raises(UsageError, match=r"cram: rho = .*not negative"):
        host_of(f"cram@{options}").begin(1, 10)


@pytest.mark.parametrize("text", ["1", "-0.1", "0.5/", "0.5;0.7", "half", "nan", ""])
def test_levels_that_cannot_be(text: str) -> None:
    with pytest.raises(UsageError, match=r"cram: sparsities = .*0\.5/0\.7/0\.9"):
        CrAM.levels(text, 0.5)


def test_levels_are_read() -> None:
    assert CrAM.levels("0.5/0.7/0.9", 0.8) == (0.5, 0.7, 0.9)
    assert CrAM.levels("case", 0.8) == (0.8,)
    assert CrAM.levels("0.5/case", 0.8) == (0.5, 0.8)


def test_a_level_without_a_budget_is_an_error_before_training(host_of: Callable[..., Host]) -> None:
    with pytest.raises(BudgetError, match=r"sparsity 0\.5 and no other"):
        host_of("cram@sparsities=0.5/0.7", 0.5, "nm:2:4").begin(1, 10)
