"""Densities in proportion to the sum over the product of a layer's sizes; no layer exceeds 1."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from sparsebench.plugin import Context, erdos_renyi_kernel


class ERK:
    """All sizes count, those of the window too."""

    kernel = True

    def allocate(self, layers: Mapping[str, Tensor], target: float, ctx: Context) -> dict[str, float]:
        """Sparsity by layer."""
        return erdos_renyi_kernel(layers, target, kernel=self.kernel)


class ER(ERK):
    """Only the two numbers of channels count."""

    kernel = False
