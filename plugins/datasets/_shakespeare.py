"""tiny-shakespeare (Karpathy 2015): a million characters of plays, with the test part that nanoGPT holds out."""

from __future__ import annotations

from pathlib import Path

from sparsebench.builtin.datasets._text import LENGTH, file_of, held_out, read, splits_of, where_and_how
from sparsebench.plugin import DatasetCorrupt, Splits

FILE = "tinyshakespeare.txt"
ADDRESS = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
CHARACTERS = "\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"  # all 65, in nanoGPT's order
TEST, VALIDATION = 0.1, 0.1  # the last tenth, as nanoGPT; and of what is left the last tenth


def missing(root: Path | None = None) -> str | None:
    """Why the set is not here and how to get it; None if it is."""
    return None if file_of(root, FILE) else where_and_how("tiny-shakespeare", root, FILE, ADDRESS)


def load(root: Path | None = None, length: int = LENGTH) -> Splits:
    """Characters as int64 [n, length] with the next ones as labels; 81 % train, 9 % validation, 10 % test, in order.

    Raises `DatasetMissing`, or `DatasetCorrupt` naming the file and the first character that the set does not have.
    """
    import torch

    path = file_of(root, FILE)
    text = read(path, missing(root))
    number = {character: i for i, character in enumerate(CHARACTERS)}
    odd = next((at for at, character in enumerate(text) if character not in number), None)
    if odd is not None:
        raise DatasetCorrupt(f"{path}: character {odd} is {text[odd]!r}, which tiny-shakespeare does not have")
    rest, test = held_out(torch.tensor([number[character] for character in text]), TEST)
    train, validation = held_out(rest, VALIDATION)
    return splits_of("tiny-shakespeare", (train, validation, test), length)
