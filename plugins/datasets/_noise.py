"""Seeded normal inputs with random labels."""

from __future__ import annotations

from pathlib import Path

from sparsebench.plugin import Examples, Splits

TRAIN, HELD_OUT, CLASSES = 512, 128, 10


def load(root: Path | None = None, shape: tuple[int, ...] = (784,)) -> Splits:
    """Inputs float32 [n, *shape], standard normal, labels uniform over 10 classes; the same at every call."""
    import torch

    generator = torch.Generator().manual_seed(0)

    def examples(count: int) -> Examples:
        inputs = torch.randn(count, *shape, generator=generator)
        return Examples(inputs, torch.randint(CLASSES, (count,), generator=generator))

    return Splits(examples(TRAIN), examples(HELD_OUT), examples(HELD_OUT))
