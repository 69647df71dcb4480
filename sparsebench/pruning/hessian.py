"""What a layer's weight is multiplied with, and the Hessian of its output's squared error, from calibration examples.

The output of a row w of the weight, viewed as [out, -1], is w·x. Its squared error under a change d of the row is
d·xxᵀ·d, so that one matrix, H = 2·mean(xxᵀ), serves all rows (LeCun et al., "Optimal Brain Damage", 1990; Hassibi &
Stork, "Optimal Brain Surgeon", 1993; in this form Frantar & Alistarh, "Optimal Brain Compression", NeurIPS 2022). A
grouped convolution has one for each of its groups. Sums are of float64: rounded to float32, a Hessian of few examples
has negative eigenvalues.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsebench.errors import UnsupportedError, UsageError
from sparsebench.nn.layer import SparseLayer
from sparsebench.pruning.calibration import Calibration
from sparsebench.pruning.weights import layer_of

AT_ONCE = 1 << 18  # numbers of unfolded input held at a time: 2 MB in float64, half of the time of 64 MB
FIRST_DAMPING = 1e-6  # where none was asked for and none will not do


class Damping(NamedTuple):
    """What was added to a Hessian's diagonal, as a share of its mean; more than `asked` where that was too little."""

    asked: float
    used: float

    @property
    def note(self) -> str:
        """For `ctx.note`; nothing if what was asked for was enough."""
        if self.used == self.asked:
            return ""
        return f"a singular Hessian was damped by {self.used:g} of its mean diagonal, not {self.asked:g}"


def columns(layer: nn.Module, inputs: Tensor) -> Tensor:
    """What each row of a layer's weight, viewed as [out, -1], is multiplied with: [groups, samples, columns].

    So that the output is `columns(layer, x) @ weight.reshape(groups, -1, columns).mT`, group by group. Of a linear
    layer [..., in] all leading dimensions are samples, and there is one group. A convolution of
    [N, C, H, W] has a sample for every position of its output, and in/groups·kh·kw columns in the order of its weight.
    Raises `UnsupportedError` for other layers, and for padding with anything but zeros.
    """
    if _is_linear(layer):
        return inputs.reshape(1, -1, inputs.shape[-1])
    x = F.pad(inputs if inputs.dim() == 4 else inputs.unsqueeze(0), _padding(layer))
    geometry: Any = layer
    for axis, (size, dilation, stride) in enumerate(zip(*_window(geometry), strict=True), start=2):
        x = x.unfold(axis, dilation * (size - 1) + 1, stride)[..., ::dilation]
    by_group = x.unflatten(1, (geometry.groups, -1)).permute(1, 2, 5, 6, 0, 3, 4)  # [groups, in, kh, kw, N, H', W']
    return by_group.flatten(1, 3).flatten(2).mT  # a view until the last flatten: F.unfold would copy twice


def hessian(calibration: Calibration, model: nn.Module, name: str) -> Tensor:
    """2·mean(xxᵀ) over all inputs of the layer whose weight is `name`: float64 [groups, columns, columns].

    The inputs are those of the model as it is now. It does not depend on how examples are split into batches; a layer
    that nothing reaches has zeros.
    """
    total, samples = None, 0
    for x in _streamed(calibration, model, name):
        product = torch.from_numpy(x.mT.numpy() @ x.numpy())  # NumPy sees that it is symmetric: half of the time
        total = product if total is None else total.add_(product)
        samples += x.shape[1]
    if total is None:
        groups, width = _size(model, name)
        return torch.zeros(groups, width, width, dtype=torch.float64)
    return total.mul_(2 / samples)


def input_norms(calibration: Calibration, model: nn.Module, name: str) -> Tensor:
    """The root mean square of every column of the inputs of the layer whose weight is `name`: float64
    [groups, columns]; the square root of half of the Hessian's diagonal, without the Hessian."""
    total, samples = None, 0
    for x in _streamed(calibration, model, name):
        squares = x.square().sum(1)
        total = squares if total is None else total.add_(squares)
        samples += x.shape[1]
    if total is None:
        return torch.zeros(_size(model, name), dtype=torch.float64)
    return total.div_(samples).sqrt_()


def damped(hessian: Tensor, relative: float) -> tuple[Tensor, Damping]:
    """`hessian` [..., columns, columns] with `relative` times its mean diagonal added to the diagonal, and its record.

    Where that is still singular the damping grows tenfold until it is not: tell the user by `ctx.note(damping.note)`.
    Columns that no input reaches (zeros on the diagonal) stand for themselves, with the mean diagonal as theirs.
    Raises `UsageError` if the damping is negative or a number is not finite.
    """
    if not relative >= 0:
        raise UsageError(f"damping = {relative!r}; use a share of the mean diagonal, 0 or more")
    if not bool(hessian.isfinite().all()):
        raise UsageError("a Hessian is not finite: an input of its layer is not, or too large to be squared")
    diagonal = hessian.diagonal(dim1=-2, dim2=-1)
    mean = diagonal.mean(-1, keepdim=True)
    mean = torch.where(mean > 0, mean, 1.0)
    used = relative
    while True:
        made = hessian.clone()
        made.diagonal(dim1=-2, dim2=-1).add_(used * mean)
        made.diagonal(dim1=-2, dim2=-1).copy_(
            torch.where(diagonal > 0, made.diagonal(dim1=-2, dim2=-1), mean.expand_as(diagonal))
        )
        if _is_regular(made):
            return made, Damping(relative, used)
        used = max(10 * used, FIRST_DAMPING)


def inverse_factor(hessian: Tensor) -> Tensor:
    """The upper triangular U with UᵀU = H⁻¹, for a positive definite H [..., columns, columns].

    Row j of U / U[j, j] is row j of the inverse over the columns from j on, divided by its first entry: what all steps
    of the sweep of SparseGPT and GPTQ need. H = RRᵀ with an upper R = U⁻¹, which is the Cholesky factor of H in the
    reverse order; so the inverse itself, and a second factorisation that may fail, are not needed.
    """
    reverse = torch.linalg.cholesky(hessian.flip(-2, -1)).flip(-2, -1)
    identity = torch.eye(hessian.shape[-1], dtype=hessian.dtype).expand_as(hessian)
    return torch.linalg.solve_triangular(reverse, identity, upper=True)


def inverse(hessian: Tensor) -> Tensor:
    """H⁻¹ [..., columns, columns] of a positive definite H."""
    return torch.cholesky_inverse(torch.linalg.cholesky(hessian))


def _is_regular(hessian: Tensor) -> bool:
    """Whether every column keeps a share of its length beside those before it that is more than rounding."""
    factor, failed = torch.linalg.cholesky_ex(hessian)
    shares = factor.diagonal(dim1=-2, dim2=-1).square() / hessian.diagonal(dim1=-2, dim2=-1)
    least = hessian.shape[-1] * torch.finfo(hessian.dtype).eps
    return not bool(failed.any()) and bool((shares > least).all())


def _streamed(calibration: Calibration, model: nn.Module, name: str) -> Iterator[Tensor]:
    """`columns` in float64, a few examples at a time: as many as the cache holds, or as their product is large."""
    layer = layer_of(model, name)
    linear, width = _is_linear(layer), _size(model, name)[1]
    window = 1 if linear else layer.kernel_size[0] * layer.kernel_size[1]
    for inputs in calibration.inputs_of(model, layer):
        examples = inputs.reshape(-1, inputs.shape[-1]) if linear else inputs if inputs.dim() == 4 else inputs[None]
        each = window * examples[0].numel()  # at most: strides leave some out
        for few in examples.split(max(1, max(AT_ONCE, width**2) // each)):
            yield columns(layer, few.double())


def _size(model: nn.Module, name: str) -> tuple[int, int]:
    """Groups and columns."""
    layer = layer_of(model, name)
    return 1 if _is_linear(layer) else layer.groups, layer.weight[0].numel()


def _is_linear(layer: Any) -> bool:
    if hasattr(layer, "in_features") and isinstance(layer, nn.Linear | SparseLayer):
        return True
    if not (hasattr(layer, "kernel_size") and isinstance(layer, nn.Conv2d | SparseLayer)):
        raise UnsupportedError(f"{type(layer).__name__} is neither Linear nor Conv2d: what its weight meets is unknown")
    return False


def _window(layer: Any) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Size, dilation and stride, each (high, wide)."""
    return layer.kernel_size, layer.dilation, layer.stride


def _padding(layer: Any) -> tuple[int, int, int, int]:
    """Zeros left, right, above and below."""
    if layer.padding_mode != "zeros":
        raise UnsupportedError(f"a convolution that pads by {layer.padding_mode!r}; only zeros can be unfolded")
    if layer.padding == "valid":
        return (0, 0, 0, 0)
    if layer.padding == "same":  # an odd total has its extra zeros right and below, as in torch
        high, wide = (d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True))
        return (wide // 2, wide - wide // 2, high // 2, high - high // 2)
    high, wide = layer.padding
    return (wide, wide, high, high)
