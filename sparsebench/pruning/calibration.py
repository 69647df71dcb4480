"""Examples for one-shot compression: drawn with a seed, recorded, streamed; and what layers get from them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sparsebench.errors import UsageError
from sparsebench.pruning.modes import evaluating
from sparsebench.pruning.weights import layer_of


@dataclass(frozen=True)
class Calibration:
    """`count` training examples chosen by `seed`, in batches; every pass gives the same, in the same order."""

    inputs: Tensor
    labels: Tensor
    count: int = 1024
    batch: int = 64
    seed: int = 0
    ids: Tensor = field(init=False)  # which examples, in their order

    def __post_init__(self) -> None:
        total = len(self.labels)
        if self.count < 1 or self.batch < 1:
            raise UsageError(f"calibration of {self.count} examples in batches of {self.batch}: use at least 1 of each")
        order = torch.randperm(total, generator=torch.Generator().manual_seed(self.seed))
        object.__setattr__(self, "ids", order[: self.count])

    @property
    def record(self) -> dict[str, str | int]:
        """What is written beside a result: how many, from which seed, and a hash of which they were."""
        digest = hashlib.sha256(self.ids.numpy().tobytes()).hexdigest()[:16]
        return {"examples": len(self.ids), "seed": self.seed, "ids": digest}

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """(inputs, labels), a batch at a time; the last one may be smaller."""
        for ids in self.ids.split(self.batch):
            yield self.inputs[ids], self.labels[ids]

    @torch.no_grad()
    def inputs_of(self, model: nn.Module, layer: nn.Module) -> Iterator[Tensor]:
        """What `layer` gets from each batch in eval mode, as it comes: the model as it is now, earlier layers pruned.

        A layer that is used twice gives two tensors a batch. The first batch goes through the whole model, to see how
        often that is; the others no further than the layer. Modes, statistics and random state stay as they are.
        """
        seen: list[Tensor] = []
        uses = 0

        def look(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            inputs: Tensor = args[0] if args else kwargs["input"]
            if len(seen) + 1 == uses:
                seen.append(inputs.detach())
                raise _Reached
            seen.append(inputs.detach().clone())  # the rest of the model may write to it

        handle = layer.register_forward_pre_hook(look, with_kwargs=True)
        try:
            with evaluating(model):
                for inputs, _ in self.batches():
                    seen.clear()
                    with suppress(_Reached):
                        model(inputs)
                    uses = len(seen)
                    yield from seen
        finally:
            handle.remove()

    @torch.no_grad()
    def execution_order(self, model: nn.Module, names: Iterable[str]) -> list[str]:
        """Names of weights in the order in which a forward first uses their layers; those it does not use come last."""
        given = list(names)
        order: dict[str, None] = {}
        handles = [
            layer_of(model, name).register_forward_pre_hook(lambda *_, name=name: order.setdefault(name))
            for name in given
        ]
        try:
            with evaluating(model):
                model(self.inputs[self.ids[:1]])
        finally:
            for handle in handles:
                handle.remove()
        return [*order, *(name for name in given if name not in order)]


class _Reached(Exception):
    """Ends a forward: what comes after the layer is not needed."""
