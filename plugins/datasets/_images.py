"""What our sets of images share: which training images validate, and bytes as examples."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparsebench.plugin import Examples

if TYPE_CHECKING:
    from torch import Tensor


def validating(count: int, every: int) -> Tensor:
    """bool [count], True for every `every`-th training image: it validates, so that the test set chooses nothing."""
    import torch

    chosen = torch.zeros(count, dtype=torch.bool)
    chosen[every - 1 :: every] = True
    return chosen


def examples_of(images: Tensor, labels: Tensor) -> Examples:
    """uint8 images [n, C, H, W] as float32 in [0, 1], with labels int64 [n]."""
    return Examples(images.float().div_(255), labels.long())
