"""A problem is one layer operation as pure data: op, shape, batch, sparsity, pattern, dtype, threads."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from sparsebench.errors import ProblemError, nearest

OPS = ("linear", "conv2d")
DTYPES = ("float32", "float64")
PASSES = ("forward", "grad_input", "grad_weight", "backward", "both")
SPARSITY_TOLERANCE = 0.005  # how far a pattern that has a sparsity of its own may be from the one that is said
_PATTERN = re.compile(r"uniform|row-skewed|block:[1-9]\d*|nm:[1-9]\d*:[1-9]\d*|file:[^\0]+\.smtx")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One sparse layer operation.

    `batch`, `height` and `width` are hints of what will mostly come; a kernel accepts any. Raises `ProblemError`
    when no such layer can exist.
    """

    op: str  # "linear" | "conv2d"
    out_features: int  # conv2d: output channels
    in_features: int  # conv2d: input channels
    kernel_size: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    batch: int = 1
    height: int = 1
    width: int = 1
    sparsity: float = 0.9
    pattern: str = "uniform"  # also "row-skewed", "block:8", "nm:2:4" (kept:group), "file:NAME.smtx"; see `patterns`
    dtype: str = "float32"
    bias: bool = False
    threads: int = 1

    def __post_init__(self) -> None:
        _check_names(self)
        _check_numbers(self)
        if self.op == "linear":
            _check_linear(self)
        else:
            _check_conv2d(self)
        if self.pattern.startswith("nm:"):
            _check_nm(self)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """As torch stores the dense weight: [out, in] or [out, in/groups, kh, kw]."""
        if self.op == "linear":
            return (self.out_features, self.in_features)
        return (self.out_features, self.in_features // self.groups, *self.kernel_size)

    @property
    def columns(self) -> int:
        """Columns of the weight viewed as a matrix [out_features, columns]."""
        return math.prod(self.weight_shape[1:])

    @property
    def input_shape(self) -> tuple[int, ...]:
        """[batch, in_features] or [batch, in_features, height, width]."""
        if self.op == "linear":
            return (self.batch, self.in_features)
        return (self.batch, self.in_features, self.height, self.width)

    @property
    def output_size(self) -> tuple[int, int]:
        """(height, width) of conv2d's output; (1, 1) for linear."""
        return self.output_size_of(self.height, self.width)

    def output_size_of(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of conv2d's output for an input of another size than the hint; under 1 if none fits."""
        geometry = zip((height, width), self.kernel_size, self.stride, self.padding, self.dilation, strict=True)
        down, across = ((size + 2 * pad - dil * (k - 1) - 1) // step + 1 for size, k, step, pad, dil in geometry)
        return (down, across)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """[batch, out_features] or [batch, out_features, out_height, out_width]."""
        if self.op == "linear":
            return (self.batch, self.out_features)
        return (self.batch, self.out_features, *self.output_size)

    @property
    def positions(self) -> int:
        """How often each weight is used in one forward: batch times output positions."""
        return self.batch * math.prod(self.output_size)

    def describe(self) -> str:
        """Short text for messages and tables: 'linear 1024x1024 batch 128 at 0.9'."""
        text = f"{self.op} {self.in_features}->{self.out_features}"
        if self.op == "conv2d":
            text += f" {self.kernel_size[0]}x{self.kernel_size[1]} on {self.height}x{self.width}"
            text += f" stride {self.stride}" if self.stride != (1, 1) else ""
            text += f" padding {self.padding}" if self.padding != (0, 0) else ""
            text += f" dilation {self.dilation}" if self.dilation != (1, 1) else ""
            text += f" groups {self.groups}" if self.groups != 1 else ""
        text += f" batch {self.batch} at {self.sparsity:g}"
        return text + (f" {self.pattern}" if self.pattern != "uniform" else "")


def _fail(problem: Problem, what: str, do: str) -> None:
    raise ProblemError(f"{problem.op} {problem.in_features}->{problem.out_features}: {what}; {do}")


def _check_names(p: Problem) -> None:
    if p.op not in OPS:
        raise ProblemError(f"op = {p.op!r} is not known{nearest(p.op, OPS)}")
    if p.dtype not in DTYPES:
        raise ProblemError(f"dtype = {p.dtype!r} is not known{nearest(p.dtype, DTYPES)}")
    if not _PATTERN.fullmatch(p.pattern):
        raise ProblemError(
            f"pattern = {p.pattern!r} is not known; use uniform, row-skewed, block:8, nm:2:4 or file:NAME.smtx"
        )


def _check_numbers(p: Problem) -> None:
    for name in ("out_features", "in_features", "groups", "batch", "height", "width", "threads"):
        value = getattr(p, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            _fail(p, f"{name} = {value!r}", "use a whole number of at least 1")
    for name in ("kernel_size", "stride", "padding", "dilation"):
        value, least = getattr(p, name), 0 if name == "padding" else 1
        if not (isinstance(value, tuple) and len(value) == 2 and all(isinstance(v, int) and v >= least for v in value)):
            _fail(p, f"{name} = {value!r}", f"use two whole numbers of at least {least}")
    if not 0 <= p.sparsity < 1:
        _fail(p, f"sparsity = {p.sparsity!r}", "use a share of pruned weights in [0, 1)")
    if math.prod(p.weight_shape) >= 2**31 or math.prod(p.input_shape) >= 2**40:
        _fail(p, f"a weight of {math.prod(p.weight_shape)} elements", "int32 indices need fewer than 2**31")


def _check_linear(p: Problem) -> None:
    for name, neutral in (("kernel_size", (1, 1)), ("stride", (1, 1)), ("padding", (0, 0)), ("dilation", (1, 1)),
                          ("groups", 1), ("height", 1), ("width", 1)):  # fmt: skip
        if getattr(p, name) != neutral:
            _fail(p, f"{name} = {getattr(p, name)!r} means nothing for linear", f"leave {name} out")


def _check_conv2d(p: Problem) -> None:
    for side in ("in_features", "out_features"):
        if getattr(p, side) % p.groups:
            _fail(p, f"{side} = {getattr(p, side)} does not divide into groups = {p.groups}", "change one of them")
    if min(p.output_size) < 1:
        _fail(p, f"a {p.kernel_size} kernel with dilation {p.dilation} does not fit an input of "
              f"{p.height}x{p.width} padded by {p.padding}", "enlarge the input or the padding")  # fmt: skip


def _check_nm(p: Problem) -> None:
    keep, group = (int(number) for number in p.pattern.split(":")[1:])
    channels = p.in_features // p.groups
    if keep > group:
        _fail(p, f"pattern {p.pattern} keeps {keep} of {group}", f"use nm:KEPT:GROUP, as in nm:{group}:{keep}")
    if abs(1 - keep / group - p.sparsity) > SPARSITY_TOLERANCE:
        _fail(p, f"sparsity must be {1 - keep / group:g} for {p.pattern}, not {p.sparsity:g}", "change one of them")
    if channels % group:
        per = "input features" if p.op == "linear" else "input channels" + (" per group" if p.groups > 1 else "")
        _fail(p, f"{channels} {per} do not divide into {p.pattern}'s groups of {group}", "change one of them")
