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
TOKENS = 128  # how long a text is to a model that takes any length


class Examples(NamedTuple):
    """Inputs float32 [n, …] and labels int64 [n]; of text both int64 [n, T], labels being the next tokens."""

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


class Inputs(NamedTuple):
    """What a model takes: its kind and the shape of one example, () where any size will do."""

    kind: str  # "features", "images" or "tokens"
    shape: tuple[int, ...]

    @property
    def typical(self) -> tuple[int, ...]:
        """The shape of one example, with a usual size where any will do."""
        return self.shape or ((FEATURES,) if self.kind == "features" else (TOKENS,))


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
    is to be built for the channels the images have. "tokens" takes text [n, T], "tokens:128" text that is cut into
    at most 128 tokens, and `in_channels` is T. Raises `DatasetMissing`, `DatasetCorrupt`, `PluginError` if
    the loader breaks the contract, and `UsageError` naming both sides if the data cannot fit.
    """
    wanted = parse_inputs(inputs)
    loader = entry.load()
    known = inspect.signature(loader).parameters
    options: dict[str, Any] = {}
    if "shape" in known and wanted.kind != "tokens":
        options["shape"] = wanted.typical
    if "length" in known and wanted.kind == "tokens" and wanted.shape:
        options["length"] = wanted.shape[0]
    splits = loader(data_root(), **options)
    check_splits(splits, entry.spec)
    train, validation, test = (
        Examples(_fit(each, wanted, entry.spec.name, inputs), labels) for each, labels in splits[:3]
    )
    fitted = Splits(train, validation, test, *splits[3:])
    return fitted, fitted.train.inputs.shape[1]


def parse_inputs(inputs: str) -> Inputs:
    """What "features", "3x32x32", "tokens" or "tokens:128" stands for; raises `PluginError` for anything else."""
    if inputs in ("features", "tokens"):
        return Inputs(inputs, ())
    sizes = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)x([1-9]\d*)", inputs)
    if sizes:
        return Inputs("images", tuple(int(size) for size in sizes.groups()))
    length = re.fullmatch(r"tokens:([1-9]\d*)", inputs)
    if length:
        return Inputs("tokens", (int(length[1]),))
    raise PluginError(f'a model takes inputs = {inputs!r}; it must be "features", CxHxW as in "3x32x32", '
                      '"tokens", or "tokens:LENGTH" as in "tokens:128"')  # fmt: skip


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
        text = inputs.dtype == torch.int64  # tokens; numbers of any other kind are float32
        fits = inputs.ndim == 2 if text else inputs.dtype == torch.float32 and inputs.ndim >= 2
        if not fits or labels.dtype != torch.int64:
            raise PluginError(f"{where}: inputs must be float32 [n, …] and labels int64 [n], or tokens and next tokens "
                              f"int64 [n, T], not {inputs.dtype} {list(inputs.shape)} and {labels.dtype}")  # fmt: skip
        first = splits[0][0]
        wanted = inputs.shape if text else inputs.shape[:1]
        if (
            not len(labels)
            or labels.shape != wanted
            or (inputs.shape[1:], inputs.dtype) != (first.shape[1:], first.dtype)
        ):
            raise PluginError(f"{where}: {list(inputs.shape)} inputs do not go with {list(labels.shape)} "
                              f"labels and {list(first.shape)} training inputs")  # fmt: skip
        for what, values in (("labels", labels), *((("tokens", inputs),) if text else ())):
            if int(values.min()) < 0 or int(values.max()) >= spec.classes:
                raise PluginError(f"{where}: {what} run from {int(values.min())} to {int(values.max())}, "
                                  f"outside the {spec.classes} classes it declares")  # fmt: skip


def _fit(examples: Tensor, wanted: Inputs, name: str, inputs: str) -> Tensor:
    is_text = not examples.is_floating_point()
    if is_text != (wanted.kind == "tokens"):
        what, fit = ("text", '"tokens"') if is_text else ("no text", '"features" or images, or a data set of text')
        raise UsageError(
            f"data set {name} is {what} and the model takes {inputs}; choose a model whose inputs are {fit}"
        )
    if is_text:
        return _fit_text(examples, wanted, name, inputs)
    return examples.flatten(1) if wanted.kind == "features" else _fit_images(examples, wanted.shape, name, inputs)


def _fit_text(tokens: Tensor, wanted: Inputs, name: str, inputs: str) -> Tensor:
    """As it is: whoever gives text cuts it, for only there is it known what comes next."""
    if wanted.shape and tokens.shape[1] > wanted.shape[0]:
        raise UsageError(f"data set {name} has texts of {tokens.shape[1]} tokens, longer than the {inputs} the model "
                         "takes; choose another model or data set")  # fmt: skip
    return tokens


def _fit_images(images: Tensor, shape: tuple[int, ...], name: str, inputs: str) -> Tensor:
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
