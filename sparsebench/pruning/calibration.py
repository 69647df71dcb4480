"""Examples for one-shot compression: drawn with a seed, recorded, streamed; and what layers get from them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from sparsebench.errors import UsageError


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

        A layer that is used twice gives two tensors a batch. Modes, statistics and random state stay as they are.
        """
        seen: list[Tensor] = []
        handle = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
        modes = [(module, module.training) for module in model.modules()]
        model.eval()
        try:
            for inputs, _ in self.batches():
                seen.clear()
                model(inputs)
                yield from seen
        finally:
            handle.remove()
            for module, mode in modes:
                module.training = mode
