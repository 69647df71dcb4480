"""Densities by layer that meet one overall sparsity exactly."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor


def erdos_renyi_kernel(layers: Mapping[str, Tensor], sparsity: float, *, kernel: bool = True) -> dict[str, float]:
    """Sparsity by layer: densities in proportion to the sum over the product of its sizes, none above 1.

    `kernel=False` counts the two numbers of channels alone, as Mocanu et al. 2018 (equation 1); with the window, as
    Evci et al. 2020 (section 3). Solved anew without each layer that would be more than dense, until none is left: a
    density that is only clamped to 1 misses the target.
    """
    raw = {name: _raw(weight.shape if kernel else weight.shape[:2]) for name, weight in layers.items()}
    sizes = {name: weight.numel() for name, weight in layers.items()}
    dense: set[str] = set()
    while True:
        rest = [name for name in layers if name not in dense]
        wanted = (1 - sparsity) * sum(sizes.values()) - sum(sizes[name] for name in dense)
        scale = wanted / sum(raw[name] * sizes[name] for name in rest)
        full = {name for name in rest if scale * raw[name] > 1}
        if not full:
            return {name: 0.0 if name in dense else 1 - scale * raw[name] for name in layers}
        dense.add(max(full, key=lambda name: raw[name]))


def _raw(sizes: tuple[int, ...]) -> float:
    return sum(sizes) / math.prod(sizes)
