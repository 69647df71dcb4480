"""llama2.c's legacy checkpoints (Karpathy 2023, export.py version 0): seven integers, then float32 weights.

All weights of one kind stand together, layer after layer; behind them tables of rotations, which are computed here, and
the classifier if it is not the embedding. Nothing in the file says what it is, so its size must be right to the byte.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sparsebench.errors import CheckpointError

HEADER = struct.Struct("<7i")
FIELDS = ("dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "max_seq_len")
LARGEST = 1 << 20  # of any of them: more is another kind of file


class Config(NamedTuple):
    """What the header says; `vocab` is negative in the file if the classifier has weights of its own."""

    dim: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    vocab: int
    positions: int


def read_llama2c(path: Path) -> dict[str, Tensor]:
    """The weights in Meta's names, layers.0.attention.wq.weight; `CheckpointError` if header and size do not agree."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    config, tied = _config(path, data)
    parts = list(_parts(config, tied))
    wanted = HEADER.size + 4 * sum(math.prod(shape) for _, shape in parts)
    if len(data) != wanted:
        raise CheckpointError(f"{path}: has {len(data)} bytes, and {wanted} go with its header {tuple(config)}; "
                              "is it a legacy float32 checkpoint of llama2.c, and whole?")  # fmt: skip
    state: dict[str, Tensor] = {}
    place = HEADER.size
    for name, shape in parts:
        count = math.prod(shape)
        values = np.frombuffer(data, dtype="<f4", count=count, offset=place).reshape(shape)
        place += 4 * count
        if "{}" in name:
            state |= {name.format(layer): torch.tensor(each) for layer, each in enumerate(values)}
        elif name:
            state[name] = torch.tensor(values)
    return state


def _config(path: Path, data: bytes) -> tuple[Config, bool]:
    """The header, and whether the classifier is the embedding."""
    if len(data) < HEADER.size:
        raise CheckpointError(f"{path}: {len(data)} bytes are too few for the header of a llama2.c checkpoint")
    numbers = list(HEADER.unpack_from(data))
    tied, numbers[5] = numbers[5] > 0, abs(numbers[5])
    odd = next((name for name, n in zip(FIELDS, numbers, strict=True) if not 0 < n <= LARGEST), None)
    if odd:
        raise CheckpointError(f"{path}: {odd} = {numbers[FIELDS.index(odd)]} is in no header of a llama2.c checkpoint")
    config = Config(*numbers)
    if config.dim % (2 * config.heads) or config.heads % config.kv_heads:
        raise CheckpointError(f"{path}: dim = {config.dim} does not go with {config.heads} heads and "
                              f"{config.kv_heads} of keys and values")  # fmt: skip
    return config, tied


def _parts(c: Config, tied: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of everything in the file, in its order; "{}" is the layer, "" is left out."""
    kv, size = c.dim // c.heads * c.kv_heads, c.dim // c.heads
    yield "tok_embeddings.weight", (c.vocab, c.dim)
    for name, shape in (
        ("attention_norm", (c.dim,)), ("attention.wq", (c.dim, c.dim)), ("attention.wk", (kv, c.dim)),
        ("attention.wv", (kv, c.dim)), ("attention.wo", (c.dim, c.dim)), ("ffn_norm", (c.dim,)),
        ("feed_forward.w1", (c.hidden, c.dim)), ("feed_forward.w2", (c.dim, c.hidden)),
        ("feed_forward.w3", (c.hidden, c.dim)),
    ):  # fmt: skip
        yield f"layers.{{}}.{name}.weight", (c.layers, *shape)
    yield "norm.weight", (c.dim,)
    yield "", (2, c.positions, size // 2)
    if not tied:
        yield "output.weight", (c.vocab, c.dim)
