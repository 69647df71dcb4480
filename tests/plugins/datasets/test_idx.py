"""IDX files: what is right is read to the byte, whatever is wrong is one error that names the file."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from sparsebench.builtin.datasets._idx import read_idx
from sparsebench.errors import DatasetCorrupt


def test_reads_every_byte_in_order(tmp_path: Path, write_idx: Callable[..., Path]) -> None:
    path = write_idx(tmp_path / "a.gz", (2, 3, 4), bytes(range(232, 256)))
    assert read_idx(path, dimensions=3).tolist() == [
        [[232 + 12 * n + 4 * row + column for column in range(4)] for row in range(3)] for n in range(2)
    ]


def damaged(good: bytes) -> dict[str, bytes]:
    plain = gzip.decompress(good)
    return {
        "empty": b"",
        "not gzip": plain,
        "cut in the gzip": good[: len(good) - 9],
        "flipped byte": good[:-8] + bytes([good[-8] ^ 1]) + good[-7:],
        "too short": gzip.compress(plain[:-1]),
        "too long": gzip.compress(plain + b"\0"),
        "header alone cut": gzip.compress(plain[:7]),
        "wrong type": gzip.compress(struct.pack(">HBB", 0, 0x0D, 1) + plain[4:]),
        "huge": gzip.compress(struct.pack(">HBBI", 0, 8, 1, 2**32 - 1) + plain[8:]),
        "no elements": gzip.compress(struct.pack(">HBBI", 0, 8, 1, 0)),
    }


@pytest.mark.parametrize("kind", damaged(gzip.compress(bytes(20))))
def test_a_damaged_file_is_named(tmp_path: Path, write_idx: Callable[..., Path], kind: str) -> None:
    path = write_idx(tmp_path / "labels.gz", (50,), bytes(i % 10 for i in range(50)))
    assert read_idx(path, dimensions=1).numel() == 50
    path.write_bytes(damaged(path.read_bytes())[kind])
    with pytest.raises(DatasetCorrupt) as caught:
        read_idx(path, dimensions=1)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
