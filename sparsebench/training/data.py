"""Data sets as tensors: the records a loader gives, and fitting them to what a model takes.

Torch is not imported with this module, so that asking whether a data set is here costs nothing.
"""

from __future__ import annotations

import inspect
import math
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sparsebench.errors import PluginError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

FEATURES = 784  # what "features" means to a set that is made for the model, as `noise` is: a 28x28 image


class Examples(NamedTuple):
    """Inputs float32 [n, …] and labels int64 [n]."""

    inputs: Tensor
    labels: Tensor


class Splits(NamedTuple):
    """Train on `train`, choose with `validation`, touch `test` once.

    `splits[:3]` are the examples; `note` says in one line what is here of the published set, "" if all of it.
    """

    train: Examples
    validation: Examples
    test: Examples
    note: str = ""


def data_root() -> Path | None:
    """The folder of data sets that the user named in SPARSEBENCH_DATA; None if none."""
    folder = os.environ.get("SPARSEBENCH_DATA")
    return Path(folder).expanduser() if folder else None


def availability(entry: Any) -> str | None:
    """Why the data set of a registry entry is not here, and how to get it; None if it is or does not say.

    Loads nothing: it asks `missing(root)` of the loader, or of the module the loader is from.
    """
    loader = entry.load()
    ask = getattr(loader, "missing", None) or getattr(inspect.getmodule(loader), "missing", None)
    return ask(data_root()) if callable(ask) else None


def load_splits(entry: Any, inputs: str) -> tuple[Splits, int]:
    """The data set of a registry entry, fitted to a model's `inputs`; and the model's `in_channels`.

    "features" flattens every example, and `in_channels` counts the features. "1x28x28" takes images [n, C, H, W]:
    smaller ones are zero-padded evenly on all sides up to that height and width (never resized), and the model
    is to be built for the channels the images have. Raises `DatasetMissing`, `DatasetCorrupt`, `PluginError` if
    the loader breaks the contract, and `UsageError` naming both sides if the images cannot fit.
    """
    shape = parse_inputs(inputs)
    loader = entry.load()
    wants_shape = "shape" in inspect.signature(loader).parameters
    splits = loader(data_root(), shape=shape or (FEATURES,)) if wants_shape else loader(data_root())
    check_splits(splits, entry.spec)
    train, validation, test = (
        Examples(_fit(images, shape, entry.spec.name, inputs), labels) for images, labels in splits[:3]
    )
    fitted = Splits(train, validation, test, *splits[3:])
    return fitted, fitted.train.inputs.shape[1]


def parse_inputs(inputs: str) -> tuple[int, int, int] | None:
    """(channels, height, width) of "3x32x32", None for "features"; raises `PluginError` for anything else."""
    if inputs == "features":
        return None
    sizes = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)x([1-9]\d*)", inputs)
    if not sizes:
        raise PluginError(f'a model takes inputs = {inputs!r}; it must be "features" or CxHxW as in "3x32x32"')
    channels, height, width = (int(size) for size in sizes.groups())
    return channels, height, width


def check_splits(splits: Any, spec: Any) -> None:
    """Raise `PluginError` naming the data set and the first rule of the contract that its splits break."""
    import torch

    if not (isinstance(splits, tuple) and len(splits) in (3, 4)):  # plain tuples come without a note
        raise PluginError(
            f"data set {spec.name}: load gave {type(splits).__name__}, not Splits(train, validation, test)"
        )
    if not all(isinstance(note, str) for note in splits[3:]):
        raise PluginError(f"data set {spec.name}: the note of its splits is {type(splits[3]).__name__}, not str")
    for name, part in zip(Splits._fields[:3], splits[:3], strict=True):
        inputs, labels = part
        where = f"data set {spec.name}, {name}"
        if inputs.dtype != torch.float32 or inputs.ndim < 2 or labels.dtype != torch.int64:
            raise PluginError(f"{where}: inputs must be float32 [n, …] and labels int64 [n], "
                              f"not {inputs.dtype} {list(inputs.shape)} and {labels.dtype}")  # fmt: skip
        if not len(labels) or labels.shape != (len(inputs),) or inputs.shape[1:] != splits[0][0].shape[1:]:
            raise PluginError(f"{where}: {list(inputs.shape)} inputs do not go with {list(labels.shape)} "
                              f"labels and {list(splits[0][0].shape)} training inputs")  # fmt: skip
        if int(labels.min()) < 0 or int(labels.max()) >= spec.classes:
            raise PluginError(f"{where}: labels run from {int(labels.min())} to {int(labels.max())}, "
                              f"outside the {spec.classes} classes it declares")  # fmt: skip


def _fit(images: Tensor, shape: tuple[int, int, int] | None, name: str, inputs: str) -> Tensor:
    if shape is None:
        return images.flatten(1)
    if images.ndim != 4:
        raise UsageError(f"data set {name} has {math.prod(images.shape[1:])} features and the model takes "
                         f'{inputs} images; choose a model whose inputs are "features"')  # fmt: skip
    lack = [size - have for size, have in zip(shape[1:], images.shape[2:], strict=True)]
    if min(lack) < 0:
        here = "x".join(str(size) for size in images.shape[1:])
        raise UsageError(f"data set {name} has {here} images, larger than the {inputs} the model takes; "
                         "choose another model or data set")  # fmt: skip
    if lack == [0, 0]:
        return images
    from torch.nn.functional import pad

    (top, left), (bottom, right) = (n // 2 for n in lack), (n - n // 2 for n in lack)
    return pad(images, (left, right, top, bottom))
