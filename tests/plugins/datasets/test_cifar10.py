"""CIFAR-10: its binary records to the byte, any part of it with a note, and every damage named by its file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sparsebench.builtin.datasets import _cifar10
from sparsebench.builtin.datasets._cifar10 import load, missing
from sparsebench.errors import DatasetCorrupt, DatasetMissing
from sparsebench.registry import load_registry
from sparsebench.training.data import check_splits

FOLDER = "cifar-10-batches-bin"


def record(label: int, value: int) -> bytes:
    """Red is `value`, but for its second pixel, green is value + 1 and blue value + 2."""
    plane = 32 * 32
    return bytes([label, value, 255]) + bytes([value]) * (plane - 2) + bytes([value + 1] * plane + [value + 2] * plane)


def write(root: Path, name: str, values: range) -> Path:
    path = root / FOLDER / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(record(value % 10, value) for value in values))
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Thirteen and eleven training images in the 2nd and 5th file, image i of value i; three test images from 100."""
    write(tmp_path, "data_batch_2.bin", range(13))
    write(tmp_path, "data_batch_5.bin", range(13, 24))
    write(tmp_path, "test_batch.bin", range(100, 103))
    return tmp_path


def test_reads_any_part_with_a_note(root: Path) -> None:
    assert missing(root) is None
    splits = load(root)
    shown = [[round(float(image[0, 0, 0]) * 255) for image in part.inputs] for part in splits[:3]]
    assert shown == [[i for i in range(24) if i not in (9, 19)], [9, 19], [100, 101, 102]]
    assert [part.labels.tolist() for part in splits[:3]] == [[i % 10 for i in part] for part in shown]
    assert splits.note == "24 training and 3 test images of 60,000"
    check_splits(splits, load_registry().datasets["cifar-10"].spec)
    assert all(part.inputs.is_contiguous() for part in splits[:3])


def test_channels_come_first_and_rows_before_columns(root: Path) -> None:
    image = load(root).test.inputs[0]
    assert image.shape == (3, 32, 32)
    assert [round(float(plane[5, 5]) * 255) for plane in image] == [100, 101, 102]
    assert float(image[0, 0, 1]) == 1.0
    assert round(float(image[0, 1, 0]) * 255) == 100


def test_the_whole_set_has_no_note(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cifar10, "WHOLE", (24, 3))
    assert load(root).note == ""


@pytest.mark.parametrize("absent", [("test_batch.bin",), ("data_batch_2.bin", "data_batch_5.bin")])
def test_what_is_missing_says_where_it_looked_and_how_to_get_it(root: Path, absent: tuple[str, ...]) -> None:
    for name in absent:
        (root / FOLDER / name).unlink()
    with pytest.raises(DatasetMissing) as caught:
        load(root)
    message = str(caught.value)
    assert message == missing(root)
    for part in (str(root / FOLDER), "data_batch_1.bin", "test_batch.bin", "SPARSEBENCH_DATA", "https://"):
        assert part in message
    assert "\n" not in message


def test_no_folder_at_all_is_a_missing_set() -> None:
    with pytest.raises(DatasetMissing, match=f"{FOLDER}.*SPARSEBENCH_DATA"):
        load(None)


def damages() -> dict[str, tuple[str, Callable[[bytes], bytes], str]]:
    return {
        "cut": ("data_batch_5.bin", lambda data: data[:-1], "no whole number of records"),
        "too long": ("test_batch.bin", lambda data: data + b"\0", "no whole number of records"),
        "empty": ("data_batch_2.bin", lambda data: b"", "0 bytes"),
        "label": ("data_batch_5.bin", lambda data: data[:3073] + b"\x0a" + data[3074:], "record 1 has the label 10"),
        "cifar-100": ("test_batch.bin", lambda data: b"\xff" * len(data), "record 0 has the label 255"),
    }


@pytest.mark.parametrize("kind", damages())
def test_a_damaged_file_is_named(root: Path, kind: str) -> None:
    name, change, message = damages()[kind]
    path = root / FOLDER / name
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DatasetCorrupt, match=message) as caught:
        load(root)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_shrinks_while_it_is_read_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cifar10, "_records", lambda path: 20)
    with pytest.raises(DatasetCorrupt, match="ends after 39949 of 61460 bytes"):
        load(root)


def test_too_few_images_to_validate(root: Path) -> None:
    (root / FOLDER / "data_batch_2.bin").unlink()
    write(root, "data_batch_5.bin", range(9))
    with pytest.raises(DatasetCorrupt, match="9 training images are too few"):
        load(root)


def test_no_image_becomes_floats_twice(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(root, "data_batch_2.bin", range(200))
    made: list[int] = []
    original: Any = torch.Tensor.float

    def count(self: torch.Tensor) -> torch.Tensor:
        made.append(len(self))
        return original(self)

    monkeypatch.setattr(torch.Tensor, "float", count)
    load(root)
    assert made == [190, 21, 3]  # and what was made is divided in place
