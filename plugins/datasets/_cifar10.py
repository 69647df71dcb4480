"""CIFAR-10 in its binary version (Krizhevsky, "Learning multiple layers of features from tiny images", 2009).

A record is a byte for the label and 3,072 for the image: 32x32 red, then green, then blue, row by row.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sparsebench.builtin.datasets._images import examples_of, validating
from sparsebench.plugin import DatasetCorrupt, DatasetMissing, Splits

if TYPE_CHECKING:
    from torch import Tensor

FOLDER, ADDRESS = "cifar-10-batches-bin", "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
TRAIN, TEST = tuple(f"data_batch_{batch}.bin" for batch in range(1, 6)), "test_batch.bin"
SHAPE, RECORD, CLASSES = (3, 32, 32), 1 + 3 * 32 * 32, 10
WHOLE = (50_000, 10_000)  # training and test images of the published set
VALIDATION = 10  # every 10th training image validates, so that the test set chooses nothing


def missing(root: Path | None = None) -> str | None:
    """Why the set is not here and how to get it; None if there is a training file and the test file."""
    if root is not None and _train_files(root) and (root / FOLDER / TEST).is_file():
        return None
    home = str(Path.home())  # the sentence is kept in records, which name no user
    place = FOLDER if root is None else str(root / FOLDER).replace(home, "~")
    return (
        f"cifar-10 is not in {place}, where {TRAIN[0]} (any of 1 to 5) and {TEST} are looked for; unpack {ADDRESS} "
        "in a folder and set SPARSEBENCH_DATA to it"
    )


def load(root: Path | None = None) -> Splits:
    """Images float32 [n, 3, 32, 32] in [0, 1]; 45,000 train, 5,000 validation, 10,000 test, or fewer with a note.

    Any of the five training files will do, with any number of whole records: the validation set is every 10th image of
    those that are there. Raises `DatasetMissing`, or `DatasetCorrupt` naming the file that is not such records.
    """

    reason = missing(root)
    if root is None or reason:
        raise DatasetMissing(reason or "")
    images, labels = _read(_train_files(root))
    test_images, test_labels = _read([root / FOLDER / TEST])
    if len(labels) < VALIDATION:
        raise DatasetCorrupt(f"{root / FOLDER}: {len(labels)} training images are too few; there must be {VALIDATION}")
    validates = validating(len(labels), VALIDATION)
    return Splits(
        examples_of(images[~validates], labels[~validates]),
        examples_of(images[validates], labels[validates]),
        examples_of(test_images, test_labels),
        _note(len(labels), len(test_labels)),
    )


def _note(train: int, test: int) -> str:
    if (train, test) == WHOLE:
        return ""
    return f"{train:,} training and {test:,} test images of {sum(WHOLE):,}"


def _train_files(root: Path) -> list[Path]:
    return [path for name in TRAIN if (path := root / FOLDER / name).is_file()]


def _read(paths: list[Path]) -> tuple[Tensor, Tensor]:
    """Views uint8 [n, 3, 32, 32] and [n] of the records of all files."""
    import numpy as np
    import torch

    counts = [_records(path) for path in paths]
    records = np.empty((sum(counts), RECORD), dtype=np.uint8)
    for path, part in zip(paths, np.split(records, np.cumsum(counts)[:-1]), strict=True):
        try:
            with path.open("rb") as file:
                read = file.readinto(part.data.cast("B"))
        except OSError as error:
            raise DatasetCorrupt(f"{path}: cannot be read ({error.strerror})") from error
        if read != part.size:
            raise DatasetCorrupt(f"{path}: ends after {read} of {part.size} bytes; get the file again")
        highest = int(part[:, 0].argmax())
        if part[highest, 0] >= CLASSES:
            raise DatasetCorrupt(f"{path}: record {highest} has the label {part[highest, 0]}, and labels end at "
                                 f"{CLASSES - 1}; is this CIFAR-10's binary version?")  # fmt: skip
    whole = torch.from_numpy(records)
    return whole[:, 1:].unflatten(1, SHAPE), whole[:, 0]


def _records(path: Path) -> int:
    size = path.stat().st_size
    if size == 0 or size % RECORD:
        raise DatasetCorrupt(f"{path}: {size} bytes are no whole number of records of {RECORD}; get the file again")
    return size // RECORD
