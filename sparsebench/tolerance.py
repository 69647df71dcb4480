"""How far two results may differ: of kernels by the magnitude and length of each sum, of models by norms.

A right result of a kernel is elementwise within 8·eps·sqrt(K)·(|W|·|x|) of float64, eps being the precision
class's and K the non-zeros of that sum, and within a tenth of the reference in norm: without the latter zeros
would pass in bfloat16.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

EPS = {"float32": 2.0**-23, "bfloat16": 2.0**-8, "float64": 2.0**-52}
NORM_TOLERANCE = 0.1
MODEL_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1, "float64": 1e-9}  # normwise, over many layers
CHUNK = 1 << 16  # elements that stay in cache while they are compared: three times faster than whole tensors


def judged_precision(precision: str, dtype: str) -> str:
    """The class that a backend of class `precision` is judged in on a problem of `dtype`.

    "float32" means the dtype's own precision: float64 that is computed in float32 is wrong.
    """
    return "float64" if (precision, dtype) == ("float32", "float64") else precision


@dataclass(frozen=True)
class Finding:
    """One comparison, or the worst of several; errors are in units of sqrt(K)·(|W|·|x|)."""

    ok: bool
    what: str  # "forward", "grad_input", "grad_values", …
    reason: str | None  # one sentence if not ok
    max_rel_err: float
    tolerance: float


def compare(
    what: str,
    got: object,
    reference: Tensor,
    bound: Tensor,
    precision: str = "float32",
    dtype: torch.dtype | None = None,
) -> Finding:
    """Whether `got` is a tensor of the reference's shape (and of `dtype`) that is as near as `bound` says.

    `bound` = sqrt(K)·(|W|·|x|), of the reference's shape; where it is 0 the result must be exactly the reference.
    """
    tolerance = 8 * EPS[precision]
    junk = _junk(got, reference, dtype)
    if junk or not isinstance(got, Tensor):
        return Finding(False, what, f"{what} is {junk}", math.inf, tolerance)
    worst, distance = _distance(got, reference, bound)
    share = distance / (float(torch.linalg.vector_norm(reference)) or 1.0)
    if worst <= tolerance and share <= NORM_TOLERANCE:
        return Finding(True, what, None, worst, tolerance)
    if worst > tolerance:
        reason = f"{what} is off by {worst:.2g} of its magnitude, {tolerance:.2g} is allowed"
    else:
        reason = f"{what} is off by {share:.0%} in norm, {NORM_TOLERANCE:.0%} is allowed"
    return Finding(False, what, reason + _hint(got, reference), worst, tolerance)


def compare_models(
    what: str, got: Sequence[Tensor], reference: Sequence[Tensor], precision: str = "float32", slack: float = 1.0
) -> Finding:
    """Whether outputs or gradients of a whole model agree, each tensor on its own, normwise.

    A tensor under a thousandth of their common magnitude is measured by that: the gradient of a bias before a
    batch-norm, for one, is rounding alone. `slack` widens the tolerance, never so far that zeros would pass.
    """
    tolerance, worst, at = min(0.5, slack * MODEL_TOLERANCE[precision]), 0.0, 0
    if len(got) != len(reference):
        reason = f"{what}: {len(got)} tensors, {len(reference)} expected"
        return Finding(False, what, reason, math.inf, tolerance)
    sizes = [float(torch.linalg.vector_norm(one, dtype=torch.float64)) for one in reference]
    for index, (mine, theirs) in enumerate(zip(got, reference, strict=True)):
        if junk := _junk(mine, theirs, None):
            return Finding(False, what, f"{what}, tensor {index}, is {junk}", math.inf, tolerance)
        distance = float(torch.linalg.vector_norm(mine.detach().double() - theirs.detach().double()))
        size = max(sizes[index], 1e-3 * math.hypot(*sizes))
        error = distance / size if size else math.inf * distance if distance else 0.0
        if not error <= worst:
            worst, at = (math.inf if math.isnan(error) else error), index
    if worst <= tolerance:
        return Finding(True, what, None, worst, tolerance)
    reason = f"{what}, tensor {at}, is off by {worst:.2g} in norm, {tolerance:.2g} is allowed"
    return Finding(False, what, reason, worst, tolerance)


def _distance(got: Tensor, reference: Tensor, bound: Tensor) -> tuple[float, float]:
    """(largest error in units of `bound`, norm of the error); inf where a NaN stands for a number."""
    flat = [one.reshape(-1).split(CHUNK) for one in (got, reference, bound)]
    worst, squares = 0.0, 0.0
    for mine, theirs, allowed in zip(*flat, strict=True):
        if not mine.numel():
            continue
        error = (mine - theirs).abs_()
        norm, ratio = float(torch.linalg.vector_norm(error)), float((error / allowed).max())
        if math.isnan(ratio):  # 0/0 where the result must be, and is, exact; or a NaN of the kernel
            ratio = float(
                torch.where(error == 0, 0.0, error / allowed).nan_to_num_(nan=math.inf, posinf=math.inf).max()
            )
        worst, squares = max(worst, ratio), squares + norm * norm
    return worst, math.inf if math.isnan(squares) else math.sqrt(squares)


def _junk(got: object, reference: Tensor, dtype: torch.dtype | None) -> str | None:
    """What is wrong with a result before its numbers are looked at."""
    if not isinstance(got, Tensor):
        return f"{_name(got)} instead of a tensor"
    if got.layout != torch.strided or got.device.type != "cpu":
        return f"a {got.layout} tensor on {got.device} instead of a dense one on the CPU"
    if got.shape != reference.shape:
        return f"of shape {tuple(got.shape)} instead of {tuple(reference.shape)}"
    if got.dtype != (dtype or got.dtype) or not got.is_floating_point():
        return f"{got.dtype} instead of {dtype or reference.dtype}"
    return "a tensor that requires grad" if dtype and got.requires_grad else None


def _name(got: object) -> str:
    return "None" if got is None else f"a {type(got).__name__}"


def _hint(got: Tensor, reference: Tensor) -> str:
    """What the mistake looks like, if it looks like anything."""
    if bool(torch.isnan(got).any()):
        return " (it holds NaN)"
    if not bool(got.any()) and bool(reference.any()):
        return " (it is all zeros)"
    return ""
