"""A small problem that a small model can learn, made on the spot."""

from __future__ import annotations

import pytest
import torch

from sparsebench.training.data import Examples, Splits


@pytest.fixture
def blobs() -> Splits:
    """Three clusters in 8 dimensions."""
    generator = torch.Generator().manual_seed(0)
    centres = 2 * torch.randn(3, 8, generator=generator)

    def examples(count: int) -> Examples:
        labels = torch.randint(3, (count,), generator=generator)
        return Examples(centres[labels] + torch.randn(count, 8, generator=generator), labels)

    return Splits(examples(200), examples(60), examples(60))
