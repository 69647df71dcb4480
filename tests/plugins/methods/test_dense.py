"""Dense: keeps every weight, and is no method for a case that asks for sparsity."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sparsebench.errors import InvariantError
from sparsebench.pruning.host import Host


def test_keeps_everything(host_of: Callable[..., Host], drive: Callable[..., Host]) -> None:
    host = drive(host_of("dense", 0.0), 4)
    assert host.sparsity_now == 0
    assert host.updates == 0
    assert list(host.export()) == ["sparse"]


def test_at_any_other_sparsity_it_breaks_the_final_budget(
    host_of: Callable[..., Host], drive: Callable[..., Host]
) -> None:
    with pytest.raises(InvariantError, match="method dense, the end") as error:
        drive(host_of("dense", 0.5), 4)
    assert error.value.invariant == "final-budget"
