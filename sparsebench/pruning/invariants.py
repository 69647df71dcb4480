"""What must hold of a pruned model whatever the method; each rule has a name, and a broken one is raised by it.

"weights": masked weights are exactly zero; "slots": so is what the optimizer remembers of them; "budget": every mask
keeps what was declared for this moment; "final-budget": training ends at the sparsity that was asked for; "scope":
updates touch prunable weights alone; "untouched": a method changes nothing but by its update; "random-state": it draws
from its own generator; "evaluation": evaluating moves no random state, statistics or mode; "export": what was written
is what was trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sparsebench.errors import InvariantError
from sparsebench.nn.layer import SparseLayer
from sparsebench.pruning.slots import slots_of
from sparsebench.pruning.weights import layer_of


def check_weights(model: nn.Module, masks: Mapping[str, Tensor], optimizer: Optimizer | None, where: str) -> None:
    """Raise `InvariantError` for "weights" or "slots", naming the layer; sparse layers must have the mask's pattern."""
    for name, mask in masks.items():
        module = layer_of(model, name)
        if isinstance(module, SparseLayer):
            if not torch.equal(module.mask(), mask):
                raise InvariantError(
                    "weights", f"{where}: the sparse layer of {name} has another pattern than its mask"
                )
            continue
        live = _live(module.weight.detach(), mask)
        if live:
            raise InvariantError("weights", f"{where}: {live} masked weights of {name} are not zero")
        for slot_name, slot in slots_of(optimizer, module.weight) if optimizer is not None else ():
            live = _live(slot, mask)
            if live:
                raise InvariantError("slots", f"{where}: {slot_name} of {live} masked weights of {name} is not zero")


def _live(tensor: Tensor, mask: Tensor) -> int:
    """How many masked elements are not zero; `where` takes a tenth of the time of an index."""
    return int(torch.where(mask, 0.0, tensor).count_nonzero())


@contextmanager
def untouched(model: nn.Module, where: str, optimizer: Optimizer | None = None, strict: bool = True) -> Iterator[None]:
    """Raise `InvariantError` if what runs inside moved the model, the optimizer's slots or the random state.

    Not `strict`: tensors are compared by torch's version counters, which see everything but writes through `.data`.
    """
    random = torch.get_rng_state()
    before = _fingerprint(model, optimizer, strict)
    yield
    if not torch.equal(random, torch.get_rng_state()):
        torch.set_rng_state(random)
        raise InvariantError("random-state", f"{where} drew from the global random state; use ctx.generator")
    after = _fingerprint(model, optimizer, strict)
    for name, seen in before.items():
        if name not in after or not _same(seen, after[name]):
            raise InvariantError("untouched", f"{where} changed {name} itself; return an Update instead")


@contextmanager
def pure_evaluation(model: nn.Module, where: str) -> Iterator[None]:
    """Raise `InvariantError` if evaluating moved the random state, a parameter, a statistic or a mode."""
    modes = [(module, module.training) for module in model.modules()]
    random = torch.get_rng_state()
    before = _fingerprint(model, None, strict=True)
    yield
    after = _fingerprint(model, None, strict=True)
    moved = [name for name, seen in before.items() if not _same(seen, after[name])]
    if not torch.equal(random, torch.get_rng_state()):
        moved.append("the random state")
    moved += ["the mode of a module" for module, mode in modes if module.training != mode][:1]
    if moved:
        raise InvariantError("evaluation", f"{where}: evaluating moved {moved[0]}")


def _fingerprint(model: nn.Module, optimizer: Optimizer | None, strict: bool) -> dict[str, Tensor | int]:
    tensors = dict(model.state_dict(keep_vars=True))
    if optimizer is not None:
        for name, parameter in model.named_parameters():
            tensors |= {f"{slot_name} of {name}": slot for slot_name, slot in slots_of(optimizer, parameter)}
    return {name: tensor.detach().clone() if strict else tensor._version for name, tensor in tensors.items()}


def _same(before: Tensor | int, after: Tensor | int) -> bool:
    if isinstance(before, Tensor) and isinstance(after, Tensor):
        if before.is_floating_point():
            return torch.equal(before.nan_to_num(), after.nan_to_num())
        return torch.equal(before, after)
    return bool(before == after)
