"""A folder with tiny MNIST files, and no data set of this machine in sight."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

Writer = Callable[..., Path]


@pytest.fixture
def write_idx() -> Writer:
    """Write uint8 `data` of `shape` to a gzipped IDX file."""

    def write(path: Path, shape: tuple[int, ...], data: bytes, kind: int = 0x08) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        header = struct.pack(f">HBB{len(shape)}I", 0, kind, len(shape), *shape)
        path.write_bytes(gzip.compress(header + data))
        return path

    return write


@pytest.fixture
def mnist_root(tmp_path: Path, write_idx: Writer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root whose mnist/ has 24 training and 5 test images of 4x4; image i is filled with i."""
    monkeypatch.delenv("SPARSEBENCH_DOWNLOAD", raising=False)
    monkeypatch.setattr("pooch.os_cache", lambda project: str(tmp_path / "cache"))
    for part, count in (("train", 24), ("t10k", 5)):
        pixels = b"".join(bytes([i]) * 16 for i in range(count))
        write_idx(tmp_path / "data" / "mnist" / f"{part}-images-idx3-ubyte.gz", (count, 4, 4), pixels)
        labels = bytes(i % 10 for i in range(count))
        write_idx(tmp_path / "data" / "mnist" / f"{part}-labels-idx1-ubyte.gz", (count,), labels)
    return tmp_path / "data"
