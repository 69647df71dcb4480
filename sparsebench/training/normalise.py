"""How inputs in [0, 1] are scaled for a model: published weights are right only with what they were trained with."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sparsebench.errors import UsageError, nearest
from sparsebench.training.data import Examples, Splits

if TYPE_CHECKING:
    from torch import Tensor


class Scale(NamedTuple):
    """Inputs become (inputs - mean) / std; one number for each channel, or one for all."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


SCALES = {
    "none": Scale((0.0,), (1.0,)),
    "imagenet": Scale((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),  # torchvision's, used for CIFAR-10 as well
    "half": Scale((0.5,), (0.5,)),
    "byte-256": Scale((0.0,), (256 / 255,)),  # Caffe's `scale: 0.00390625` of bytes
}


def normalised(splits: Splits, name: str) -> Splits:
    """Scaled copies of the inputs of all three splits; labels and note stay. "none" gives `splits` itself.

    Inputs are float32 [n, channels, …] in [0, 1]. Raises `UsageError` for a name that is not in `SCALES`, for text, and
    if the scale is for another number of channels than the inputs have.
    """
    if name not in SCALES:
        raise UsageError(f"normalise = {name!r} is not known{nearest(name, SCALES)}")
    if name != "none" and not splits.train.inputs.is_floating_point():
        raise UsageError(f"normalise = {name!r} is for images, and the inputs are text; write normalise = 'none'")
    scale, shape = SCALES[name], list(splits.train.inputs.shape[1:])
    channels = len(scale.mean)
    if channels > 1 and (len(shape) != 3 or shape[0] != channels):
        fits = " or ".join(repr(other) for other, each in SCALES.items() if len(each.mean) == 1)
        raise UsageError(f"normalise = {name!r} is for images of {channels} channels, and the inputs are {shape}; "
                         f"{fits} fit any")  # fmt: skip
    if name == "none":
        return splits
    train, validation, test = (Examples(_scaled(inputs, scale), labels) for inputs, labels in splits[:3])
    return Splits(train, validation, test, splits.note)


def _scaled(inputs: Tensor, scale: Scale) -> Tensor:
    beside = (-1,) + (1,) * (inputs.ndim - 2)  # one number per channel, along the second dimension
    mean, std = (inputs.new_tensor(numbers).reshape(beside) for numbers in scale)
    return inputs.sub(mean).div_(std)
