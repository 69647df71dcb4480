"""FairFace: faces and their attributes in one order, and every damage named by the file and the array."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sparsebench.builtin.datasets._fairface import ATTRIBUTES, attributes, load, missing
from sparsebench.errors import DatasetCorrupt, DatasetMissing
from sparsebench.registry import load_registry
from sparsebench.training.data import check_splits


def arrays() -> dict[str, Any]:
    """Twenty training and eleven validation faces; face i is of colour (i, i + 1, i + 2) but for one pixel."""

    def images(first: int, count: int) -> np.ndarray:
        colours = (np.arange(first, first + count)[:, None] + np.arange(3)).astype(np.uint8)
        faces = np.broadcast_to(colours[:, None, None], (count, 32, 32, 3)).copy()
        faces[:, 2, 7] = 255
        return faces

    def table(first: int, count: int) -> np.ndarray:
        i = np.arange(first, first + count)
        return np.stack([i % 7, i % 2, i % 9], axis=1).astype(np.uint8)

    return {
        "train_images": images(0, 20), "train_attributes": table(0, 20),
        "val_images": images(100, 11), "val_attributes": table(100, 11),
    }  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    np.savez_compressed(tmp_path / "fairface32.npz", **arrays())
    return tmp_path


def test_reads_and_splits(root: Path) -> None:
    assert missing(root) is None
    splits = load(root)
    shown = [[round(float(image[0, 0, 0]) * 255) for image in part.inputs] for part in splits[:3]]
    assert shown == [[i for i in range(20) if i not in (9, 19)], [9, 19], list(range(100, 111))]
    assert [part.labels.tolist() for part in splits[:3]] == [[i % 2 for i in part] for part in shown]
    check_splits(splits, load_registry().datasets["fairface"].spec)
    assert splits.note == ""


def test_channels_come_first_in_memory_too(root: Path) -> None:
    inputs = load(root).test.inputs
    assert inputs.shape == (11, 3, 32, 32)
    assert inputs.is_contiguous()
    assert (inputs[4, :, 0, 0] * 255).round().tolist() == [104, 105, 106]
    assert torch.equal(inputs[4, :, 2, 7], torch.ones(3))
    assert inputs[4, 0, 7, 2] < 0.5


def test_attributes_are_those_of_the_examples_in_order(root: Path) -> None:
    splits, table = load(root), attributes(root)
    assert list(ATTRIBUTES) == ["race", "gender", "age"]
    for part, rows in zip(splits[:3], table, strict=True):
        faces = [round(float(image[0, 0, 0]) * 255) for image in part.inputs]
        assert rows.dtype == torch.int64
        assert rows.tolist() == [[i % 7, i % 2, i % 9] for i in faces]
        assert torch.equal(rows[:, 1], part.labels)


@pytest.mark.parametrize("read", [load, attributes])
def test_what_is_missing_says_where_it_looked_and_how_to_get_it(tmp_path: Path, read: Callable[..., Any]) -> None:
    with pytest.raises(DatasetMissing) as caught:
        read(tmp_path)
    message = str(caught.value)
    assert message == missing(tmp_path)
    for part in (str(tmp_path / "fairface32.npz"), "train_attributes", "SPARSEBENCH_DATA", "https://"):
        assert part in message
    assert "\n" not in message
    with pytest.raises(DatasetMissing, match=r"fairface32\.npz is looked for"):
        read(None)


def damages() -> dict[str, tuple[Callable[[dict[str, Any]], Any], str]]:
    return {
        "no array": (lambda a: a.pop("val_images"), "val_images cannot be read"),
        "objects": (lambda a: a.update(train_images=np.array([{}])), "train_images cannot be read"),
        "floats": (lambda a: a.update(val_images=a["val_images"] / 255), r"val_images is float64 \[11, 32, 32, 3\]"),
        "channels first": (
            lambda a: a.update(train_images=a["train_images"].transpose(0, 3, 1, 2)),
            r"train_images is uint8 \[20, 3, 32, 32\], not uint8 \[n, 32, 32, 3\]",
        ),
        "columns": (
            lambda a: a.update(train_attributes=a["train_attributes"][:, :2]), r"train_attributes is uint8 \[20, 2\]"
        ),
        "values": (lambda a: a["val_attributes"].__setitem__((3, 1), 2), "val_attributes has the gender 2"),
        "uneven": (
            lambda a: a.update(val_attributes=a["val_attributes"][:10]), "10 rows of attributes for 11 images of test"
        ),
        "few": (lambda a: a.update(train_images=a["train_images"][:9]), r"train_images is uint8 \[9"),
    }  # fmt: skip


@pytest.mark.parametrize("kind", damages())
def test_a_wrong_array_is_named(root: Path, kind: str) -> None:
    change, message = damages()[kind]
    content = arrays()
    change(content)
    np.savez(root / "fairface32.npz", **content)
    with pytest.raises(DatasetCorrupt, match=message) as caught:
        load(root)
    assert str(root / "fairface32.npz") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04 cut"])
def test_a_file_that_is_no_npz_is_named(root: Path, content: bytes) -> None:
    (root / "fairface32.npz").write_bytes(content)
    with pytest.raises(DatasetCorrupt) as caught:
        load(root)
    assert str(root / "fairface32.npz") in str(caught.value)
    assert "\n" not in str(caught.value)
