"""The problem that a layer poses for one input shape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from sparsebench.errors import ProblemError, UnsupportedError, UsageError
from sparsebench.problem import Problem


def problem_of(
    module: Any,
    input_shape: Sequence[int],
    sparsity: float | None = None,
    threads: int | None = None,
    pattern: str = "uniform",
) -> Problem:
    """The `Problem` of a linear or conv2d layer, dense or sparse, on an input of `input_shape`.

    `input_shape` is what the layer is called with: [..., in], [C, H, W] or [N, C, H, W]. `sparsity` defaults to the
    share of weights that are zero (dense layer) or outside the pattern (sparse layer), `threads` to torch's. An empty
    pattern is described as one that keeps a single weight, because a problem's sparsity is below 1. Raises
    `UsageError` for another kind of layer or input, `UnsupportedError` for padding that a problem cannot express.
    """
    weight = weight_like(module)
    if sparsity is None:
        kept = module.values.numel() if hasattr(module, "values") else torch.count_nonzero(weight)
        sparsity = 1 - int(kept) / max(1, weight.numel())
    return Problem(
        **geometry_of(module),
        **_sizes(module, input_shape),
        sparsity=min(sparsity, 1 - 1 / max(2, weight.numel())),
        pattern=pattern,
        dtype=str(weight.dtype).removeprefix("torch."),
        bias=getattr(module, "bias", None) is not None,
        threads=threads or torch.get_num_threads(),
    )


def weight_like(module: Any) -> torch.Tensor:
    """The dense weight, or for a sparse layer an expanded tensor of its shape and dtype that costs no memory."""
    if hasattr(module, "values") and hasattr(module, "weight_shape"):
        return module.values.detach().new_zeros(()).expand(module.weight_shape)
    if not isinstance(module, nn.Linear | nn.Conv2d):
        raise UsageError(f"{type(module).__name__} is neither a linear nor a conv2d layer")
    return module.weight.detach()


def geometry_of(module: Any) -> dict[str, Any]:
    """`op`, features, kernel size, stride, padding, dilation and groups of a dense or sparse layer."""
    if hasattr(module, "in_features"):
        return {"op": "linear", "out_features": module.out_features, "in_features": module.in_features}
    return {
        "op": "conv2d",
        "out_features": module.out_channels,
        "in_features": module.in_channels,
        "kernel_size": tuple(module.kernel_size),
        "stride": tuple(module.stride),
        "padding": zero_padding(module),
        "dilation": tuple(module.dilation),
        "groups": module.groups,
    }


def zero_padding(conv: Any) -> tuple[int, int]:
    """Rows and columns of zeros on each side; raises `UnsupportedError` for other values or uneven sides."""
    if conv.padding_mode != "zeros":
        raise UnsupportedError(f"padding_mode = {conv.padding_mode!r} is not supported; use 'zeros'")
    if conv.padding == "valid":
        return (0, 0)
    if conv.padding == "same":
        total = [dilation * (size - 1) for size, dilation in zip(conv.kernel_size, conv.dilation, strict=True)]
        if any(each % 2 for each in total):
            raise UnsupportedError(
                f"padding='same' pads one side more for kernel_size={tuple(conv.kernel_size)}; pad before the layer"
            )
        return (total[0] // 2, total[1] // 2)
    return (conv.padding[0], conv.padding[1])


def output_shape(problem: Problem, input_shape: Sequence[int]) -> tuple[int, ...]:
    """[batch, out] or [N, out, H', W'] for a batched input; raises `ProblemError` if the kernel does not fit."""
    if problem.op == "linear":
        return (input_shape[0], problem.out_features)
    height, width = problem.output_size_of(input_shape[2], input_shape[3])
    if min(height, width) < 1:
        raise ProblemError(
            f"an input of {input_shape[2]}x{input_shape[3]} padded by {problem.padding} is smaller than the "
            f"{problem.kernel_size} kernel with dilation {problem.dilation}; enlarge the input or the padding"
        )
    return (input_shape[0], problem.out_features, height, width)


def _sizes(module: Any, shape: Sequence[int]) -> dict[str, Any]:
    name = type(module).__name__
    if hasattr(module, "in_features"):
        if not shape or shape[-1] != module.in_features:
            raise ProblemError(f"{name}: input is {tuple(shape)}; it must end in {module.in_features} features")
        return {"batch": max(1, math.prod(shape[:-1]))}
    if len(shape) not in (3, 4) or shape[-3] != module.in_channels:
        raise ProblemError(f"{name}: input is {tuple(shape)}; it must be [N, {module.in_channels}, H, W] or without N")
    return {"batch": max(1, shape[0] if len(shape) == 4 else 1), "height": shape[-2], "width": shape[-1]}
