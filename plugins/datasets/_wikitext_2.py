"""WikiText-2 (Merity et al., ICLR 2017) as bytes, so that a small model needs no vocabulary of 33,000 words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sparsebench.builtin.datasets._text import LENGTH, file_of, held_out, read, splits_of, where_and_how
from sparsebench.plugin import Splits

if TYPE_CHECKING:
    from torch import Tensor

FILES = {part: f"wikitext-2.{part}.txt" for part in ("train", "valid", "test")}
ADDRESS = "https://huggingface.co/datasets/Salesforce/wikitext"
VALIDATION = 0.1  # of the validation text, where that is what there is to train on


def missing(root: Path | None = None) -> str | None:
    """Why the set is not here and how to get it; None if validation and test text are."""
    if file_of(root, FILES["valid"]) and file_of(root, FILES["test"]):
        return None
    return where_and_how("wikitext-2", root, f"{FILES['valid']} and {FILES['test']}", ADDRESS)


def load(root: Path | None = None, length: int = LENGTH) -> Splits:
    """UTF-8 bytes as int64 [n, length] with the next ones as labels.

    Without wikitext-2.train.txt, training takes the first 90 % of the validation text and validation the rest, and the
    note says so. Raises `DatasetMissing`, or `DatasetCorrupt` naming the file.
    """
    reason = missing(root)
    valid, test = (_stream(None if reason else file_of(root, FILES[part]), reason) for part in ("valid", "test"))
    file = file_of(root, FILES["train"])
    train, validation = (_stream(file, None), valid) if file else held_out(valid, VALIDATION)
    note = "" if file else "trained on 90 % of WikiText-2's validation text: its training text is not here"
    return splits_of("wikitext-2", (train, validation, test), length, note)


def _stream(path: Path | None, reason: str | None) -> Tensor:
    import numpy as np
    import torch

    return torch.from_numpy(np.frombuffer(read(path, reason).encode(), dtype=np.uint8).copy())
