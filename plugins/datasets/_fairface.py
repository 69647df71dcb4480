"""FairFace at 32x32: faces with race, gender and age, to see whom pruning costs its accuracy.

Karkkainen & Joo, "FairFace: Face attribute dataset for balanced race, gender, and age", WACV 2021. What differs between
groups after pruning: Hooker et al., "Characterising bias in compressed models", 2020.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sparsebench.builtin.datasets._images import examples_of, validating
from sparsebench.plugin import DatasetCorrupt, DatasetMissing, Splits

if TYPE_CHECKING:
    from torch import Tensor

FILE, ADDRESS = "fairface32.npz", "https://github.com/joojs/fairface"
# The columns of an attribute table, in order, and what its numbers mean.
ATTRIBUTES = {
    "race": ("Black", "East Asian", "Indian", "Latino_Hispanic", "Middle Eastern", "Southeast Asian", "White"),
    "gender": ("Female", "Male"),
    "age": ("0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "more than 70"),
}
IMAGE = (32, 32, 3)
TASK = "gender"  # what the labels are
VALIDATION = 10  # every 10th training image validates; the published validation set is our test set


class Attributes(NamedTuple):
    """int64 [n, 3] for each split, row by row those of its examples; columns and values as in `ATTRIBUTES`."""

    train: Tensor
    validation: Tensor
    test: Tensor


def missing(root: Path | None = None) -> str | None:
    """Why the set is not here and how to get it; None if the file is there."""
    if root is not None and (root / FILE).is_file():
        return None
    home = str(Path.home())  # the sentence is kept in records, which name no user
    place = FILE if root is None else str(root / FILE).replace(home, "~")
    return (
        f"fairface is not here: {place} is looked for; make it from {ADDRESS} with train_images and val_images (uint8 "
        f"[n, 32, 32, 3]) and train_attributes and val_attributes (uint8 [n, 3]: {', '.join(ATTRIBUTES)}), and set "
        "SPARSEBENCH_DATA to its folder"
    )


def load(root: Path | None = None) -> Splits:
    """Images float32 [n, 3, 32, 32] in [0, 1], labels the gender; every 10th of train validates, val is the test.

    Raises `DatasetMissing`, or `DatasetCorrupt` naming the file and the array that is wrong.
    """
    path = _path(root)
    train, test = (_array(path, f"{part}_images", IMAGE) for part in ("train", "val"))
    tables, column = attributes(root), list(ATTRIBUTES).index(TASK)
    validates = validating(len(train), VALIDATION)
    parts = (train[~validates], train[validates], test)
    for name, images, table in zip(Attributes._fields, parts, tables, strict=True):
        if len(images) != len(table):
            raise DatasetCorrupt(f"{path}: {len(table)} rows of attributes for {len(images)} images of {name}")
    first, second, third = (
        # Turned as bytes: a permuted float tensor would keep the channels last in memory.
        examples_of(images.permute(0, 3, 1, 2).contiguous(), table[:, column].contiguous())
        for images, table in zip(parts, tables, strict=True)
    )
    return Splits(first, second, third)


def attributes(root: Path | None = None) -> Attributes:
    """Race, gender and age of every example of `load(root)`, in its order; raises as `load` does.

    Another task than gender is another column as labels: `Examples(images, attributes(root).train[:, 2].contiguous())`.
    """
    path = _path(root)
    train, test = (_table(path, f"{part}_attributes") for part in ("train", "val"))
    validates = validating(len(train), VALIDATION)
    return Attributes(train[~validates], train[validates], test)


def _path(root: Path | None) -> Path:
    reason = missing(root)
    if root is None or reason:
        raise DatasetMissing(reason or "")
    return root / FILE


def _table(path: Path, name: str) -> Tensor:
    table = _array(path, name, (len(ATTRIBUTES),)).long()
    for column, (attribute, values) in enumerate(ATTRIBUTES.items()):
        if int(table[:, column].max()) >= len(values):
            raise DatasetCorrupt(f"{path}: {name} has the {attribute} {int(table[:, column].max())}, and there are "
                                 f"{len(values)} from 0 on")  # fmt: skip
    return table


def _array(path: Path, name: str, shape: tuple[int, ...]) -> Tensor:
    """The uint8 tensor [n, *shape] called `name`."""
    import numpy as np
    import torch

    try:
        with np.load(path, allow_pickle=False) as file:
            array = file[name]
    except Exception as error:  # a damaged archive makes zipfile, zlib and numpy raise nearly anything
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DatasetCorrupt(f"{path}: {name} cannot be read ({reason}); get the file again") from error
    if array.dtype != np.uint8 or array.shape[1:] != shape or len(array) < VALIDATION:
        raise DatasetCorrupt(f"{path}: {name} is {array.dtype} {list(array.shape)}, not uint8 "
                             f"{['n', *shape]} of {VALIDATION} or more".replace("'", ""))  # fmt: skip
    return torch.from_numpy(np.ascontiguousarray(array))
