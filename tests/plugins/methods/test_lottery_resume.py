"""Lottery tickets that were interrupted, in whatever round, come to the same bits in the end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sparsebench.builtin.methods._lottery import Lottery
from sparsebench.errors import InvariantError
from sparsebench.plugin import Event, Update
from sparsebench.pruning.host import Host
from sparsebench.training.data import Examples, Splits
from sparsebench.training.loop import train
from sparsebench.training.recipe import Recipe

RECIPE = Recipe(epochs=4, batch=16, lr=0.1)  # of 4 steps; a round after the first begins in the second, at step 6


def data() -> Splits:
    draw = torch.Generator().manual_seed(0)
    parts = [Examples(torch.randn(n, 8, generator=draw), torch.randint(3, (n,), generator=draw)) for n in (64, 16, 16)]
    return Splits(*parts)


def goes_on_where_it_was(
    make: Callable[[], Any], host_of: Callable[..., Host], file: Path, stop: int, rewind: str
) -> None:
    """`stop` is the epoch after which it is interrupted, before that epoch is written."""

    def interrupt(epoch: int, loss: float, accuracy: float) -> None:
        if epoch == stop:
            raise KeyboardInterrupt

    def host() -> Host:
        return host_of(f"lottery@rewind={rewind},rewind_at=0.4", 0.7, "erk", method=make())

    whole = host()
    train(whole.model, data(), RECIPE, host=whole)
    first, second = host(), host()
    with pytest.raises(KeyboardInterrupt):
        train(first.model, data(), RECIPE, host=first, file=file, progress=interrupt)
    result = train(second.model, data(), RECIPE, host=second, file=file)
    assert result.steps == 16 + 6 * 10
    assert whole.updates == second.updates == 6
    assert all(torch.equal(mask, second.masks[name]) for name, mask in whole.masks.items())
    assert all(torch.equal(tensor, second.state()[name]) for name, tensor in whole.state().items())


class CountsByItself(Lottery):
    """Remembers the round, and not by its state; where that ends is not for the host to say."""

    needs = frozenset({"own_budget"})

    def __init__(self) -> None:
        self.count = 0

    def on_event(self, event: Event, ctx: Any) -> Update | None:
        self.count += event is Event.ROUND_BEGIN
        update = super().on_event(event, ctx)
        if update is None:
            return None
        sparsity = self.sparsities(ctx)[self.count - 1]
        scores = {name: torch.where(ctx.masks[name], w.abs(), -1.0) for name, w in ctx.prunable.items()}
        return Update(masks=ctx.select(scores, sparsity), sparsity=sparsity)


class HeldToIt(CountsByItself):
    needs = frozenset()


# At 2 no snapshot is written yet, at 6 the end of the first round, at 15 the midst of a later one.
@pytest.mark.parametrize("rewind", ["weights", "rate"])
@pytest.mark.parametrize("stop", [2, 6, 15])
def test_it_goes_on_where_it_was(stop: int, rewind: str, tmp_path: Path, host_of: Callable[..., Host]) -> None:
    goes_on_where_it_was(Lottery, host_of, tmp_path / "state", stop, rewind)


def test_a_memory_of_its_own_is_found(tmp_path: Path, host_of: Callable[..., Host]) -> None:
    goes_on_where_it_was(CountsByItself, host_of, tmp_path / "early", 2, "weights")
    with pytest.raises(AssertionError):
        goes_on_where_it_was(CountsByItself, host_of, tmp_path / "late", 15, "weights")
    with pytest.raises(InvariantError, match="'final-budget'"):
        goes_on_where_it_was(HeldToIt, host_of, tmp_path / "held", 15, "weights")
