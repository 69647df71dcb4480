"""What an ordinary run sees of a method that writes to weights at the events of every step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sparsebench.errors import InvariantError
from sparsebench.pruning.contract import Event, Update
from sparsebench.pruning.host import Host
from sparsebench.training.data import Splits
from sparsebench.training.loop import train
from sparsebench.training.recipe import Recipe


class Writes:
    """Shrinks weights at one kind of event, through what it is only to read; `honest`: it reads."""

    def __init__(self, event: Event, honest: bool = False) -> None:
        self.event, self.honest = event, honest

    def setup(self, ctx: Any) -> Update:
        return Update(masks=ctx.select({name: weight.abs() for name, weight in ctx.prunable.items()}))

    def on_event(self, event: Event, ctx: Any) -> None:
        if event is self.event:
            weight = next(iter(ctx.prunable.values()))
            _ = weight * 0.99 if self.honest else weight.mul_(0.99)


@pytest.mark.parametrize("event", [Event.STEP_BEGIN, Event.GRADS_READY, Event.STEP_END, Event.EPOCH_BEGIN])
def test_a_write_is_seen_without_being_strict(event: Event, host_of: Callable[..., Host], images: Splits) -> None:
    host = host_of(Writes(event), strict=False)
    with pytest.raises(InvariantError, match="return an Update instead") as error:
        train(host.model, images, Recipe(epochs=1), host=host)
    assert error.value.invariant == "untouched"
    honest = host_of(Writes(event, honest=True), strict=False)
    assert train(honest.model, images, Recipe(epochs=1), host=honest).steps > 0
