"""Reads IDX, the format of MNIST: a big-endian header of sizes, then the bytes."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from sparsebench.plugin import DatasetCorrupt

if TYPE_CHECKING:
    from torch import Tensor

UNSIGNED_BYTE = 0x08
LARGEST = 1 << 31  # bytes: a header that asks for more is not one of these sets


def read_idx(path: Path, dimensions: int) -> Tensor:
    """The uint8 tensor in a gzipped IDX file; raises `DatasetCorrupt` naming the file and what is wrong."""
    import torch

    try:
        with gzip.open(path) as file:
            shape = _header(path, file.read(4 + 4 * dimensions), dimensions)
            size = math.prod(shape)
            data = file.read(size + 1)  # one more: reaching the end also checks gzip's own checksum
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetCorrupt(f"{path}: cannot be unpacked ({error}); get the file again") from error
    if len(data) != size:
        held = "more" if len(data) > size else f"{len(data)}"
        raise DatasetCorrupt(f"{path}: the header promises {size} bytes and there are {held}; get the file again")
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).reshape(shape)


def _header(path: Path, header: bytes, dimensions: int) -> tuple[int, ...]:
    expected = struct.pack(">HBB", 0, UNSIGNED_BYTE, dimensions)
    if len(header) != 4 + 4 * dimensions or header[:4] != expected:
        raise DatasetCorrupt(
            f"{path}: is not an IDX file of unsigned bytes in {dimensions} dimensions: it begins {header[:4].hex()}"
        )
    shape = struct.unpack(f">{dimensions}I", header[4:])
    if not 0 < math.prod(shape) < LARGEST:
        raise DatasetCorrupt(f"{path}: the header gives the shape {shape}; get the file again")
    return shape
