"""What optimizers remember of every weight, for those that the host knows: it must be zero where a mask drops a weight.

A slot that is not zero there brings a pruned weight back: momentum and Adam's averages move it at the next step.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

from sparsebench.errors import UsageError

# Slots that start at 0 and are updated element by element, so that zeroing one is the same as forgetting it.
KNOWN: dict[type[Optimizer], tuple[str, ...]] = {
    SGD: ("momentum_buffer",),
    Adam: ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"),
    AdamW: ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"),
}


def check_known(optimizer: Optimizer) -> None:
    """Raise `UsageError` for an optimizer whose slots the host cannot keep at zero."""
    if type(optimizer) not in KNOWN:
        known = ", ".join(kind.__name__ for kind in KNOWN)
        raise UsageError(
            f"the optimizer {type(optimizer).__name__} is not known here: what it remembers of a pruned weight would "
            f"bring it back; use {known}"
        )


def slots_of(optimizer: Optimizer, parameter: Tensor) -> Iterator[tuple[str, Tensor]]:
    """(name, slot) of every elementwise slot that the optimizer has for a parameter by now."""
    state = optimizer.state.get(parameter, {})
    for name in KNOWN[type(optimizer)]:
        slot = state.get(name)
        if isinstance(slot, Tensor):
            yield name, slot


@torch.no_grad()
def keep_slots(optimizer: Optimizer, parameter: Tensor, keep: Tensor) -> None:
    """Zero the slots of a parameter outside `keep` (bool, of its shape)."""
    for _, slot in slots_of(optimizer, parameter):
        slot.masked_fill_(~keep, 0)


@torch.no_grad()
def forget(optimizer: Optimizer) -> None:
    """Zero every slot of every parameter, and the counts of steps that Adam corrects its averages by.

    Goes over `optimizer.state`, never over gradients: between `zero_grad` and `backward` there are none, and a
    reset that looks for them does nothing.
    """
    for parameter, state in optimizer.state.items():
        for _, slot in slots_of(optimizer, parameter):
            slot.zero_()
        if isinstance(state.get("step"), Tensor):
            state["step"].zero_()
