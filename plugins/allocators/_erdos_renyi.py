"""Densities in proportion to the sum over the product of a layer's sizes; no layer exceeds 1."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from sparsebench.plugin import Context


class ERK:
    """All sizes count, those of the window too."""

    def allocate(self, layers: Mapping[str, Tensor], target: float, ctx: Context) -> dict[str, float]:
        """Sparsity by layer; solved anew without each layer that would be more than dense, until none is left.

        A density that is only clamped to 1 misses the target.
        """
        raw = {name: self._raw(weight.shape) for name, weight in layers.items()}
        sizes = {name: weight.numel() for name, weight in layers.items()}
        dense: set[str] = set()
        while True:
            rest = [name for name in layers if name not in dense]
            wanted = (1 - target) * sum(sizes.values()) - sum(sizes[name] for name in dense)
            scale = wanted / sum(raw[name] * sizes[name] for name in rest)
            full = {name for name in rest if scale * raw[name] > 1}
            if not full:
                return {name: 0.0 if name in dense else 1 - scale * raw[name] for name in layers}
            dense.add(max(full, key=lambda name: raw[name]))

    @staticmethod
    def _raw(shape: tuple[int, ...]) -> float:
        return sum(shape) / math.prod(shape)


class ER(ERK):
    """Only the two numbers of channels count."""

    @staticmethod
    def _raw(shape: tuple[int, ...]) -> float:
        return sum(shape[:2]) / math.prod(shape[:2])
