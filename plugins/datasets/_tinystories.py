"""TinyStories (Eldan & Li 2023), its first stories, in the tokens of the model `stories260k`."""

from __future__ import annotations

from pathlib import Path

from sparsebench.builtin.datasets._bpe import Tokenizer
from sparsebench.builtin.datasets._text import LENGTH, file_of, held_out, read, splits_of, where_and_how
from sparsebench.plugin import Splits

FILE, TOKENIZER = "tinystories_train_head.txt", Path("models") / "stories260k" / "tokenizer.bin"
ADDRESS = "https://huggingface.co/datasets/roneneldan/TinyStories"
TOKENIZER_ADDRESS = "https://huggingface.co/karpathy/tinyllamas"
VOCABULARY = 512
# The first fifth tests; stories260k does better on it (1.46 nats a token) than on the rest (1.92). So its perplexity is
# to compare methods by, and is not the published one, which is of the validation file.
TEST, VALIDATION = 0.2, 0.125  # of all, and of what is left


def missing(root: Path | None = None) -> str | None:
    """Why the set is not here and how to get it; None if text and tokenizer are."""
    if root is None or not file_of(root, FILE):
        return where_and_how("tinystories", root, FILE, ADDRESS)
    if not (root / TOKENIZER).is_file():
        place = str(root / TOKENIZER).replace(str(Path.home()), "~")
        return f"tinystories needs {place}, its tokenizer; get stories260K/tok512.bin from {TOKENIZER_ADDRESS}"
    return None


def load(root: Path | None = None, length: int = LENGTH) -> Splits:
    """Tokens int64 [n, length] with the next ones as labels; the first 20 % test, then 70 % train, 10 % validation.

    Raises `DatasetMissing`, or `DatasetCorrupt` naming the file.
    """
    import torch

    reason = missing(root)
    text = read(None if reason else file_of(root, FILE), reason)
    assert root is not None  # or it was missing
    tokens = torch.tensor(Tokenizer.from_file(root / TOKENIZER, VOCABULARY).encode(text))
    test, rest = held_out(tokens, 1 - TEST)
    train, validation = held_out(rest, VALIDATION)
    note = f"the first {len(tokens):,} tokens of the training file: a published model may have seen them"
    return splits_of("tinystories", (train, validation, test), length, note)
