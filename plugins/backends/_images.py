"""Tensors as our compiled kernels take them: linear as conv2d of one position, checked, elements in their places."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsebench.plugin import Problem, ProblemError

GRAIN = 2**17  # multiplications worth another thread


def as_images(x: Tensor, problem: Problem, dtype: torch.dtype) -> Tensor:
    """x [batch, in] or [N, C, H, W] as [images, channels, height, width]; raises `ProblemError` if it is none."""
    linear, channels = problem.op == "linear", problem.in_features
    if x.dtype != dtype or x.dim() != (2 if linear else 4) or x.shape[1] != channels:
        raise ProblemError(
            f"x is {x.dtype} {tuple(x.shape)}; {problem.describe()} takes {dtype} "
            f"[batch, {channels}{'' if linear else ', height, width'}]"
        )
    images = x[:, :, None, None] if linear else x
    if min(output_shape(images, problem)[2:]) < 1:
        raise ProblemError(f"x is {tuple(x.shape)}: smaller than the window of {problem.describe()}")
    return aligned(images)


def as_output_images(grad_output: Tensor, images: Tensor, problem: Problem) -> Tensor:
    """grad_output as [images, features, height', width']; raises `ProblemError` if `images` have another output."""
    grads = grad_output if problem.op == "conv2d" else grad_output[..., None, None]
    shape = output_shape(images, problem)
    if grads.dtype != images.dtype or grads.shape != shape:
        raise ProblemError(
            f"grad_output is {grad_output.dtype} {tuple(grad_output.shape)}; this x needs {images.dtype} "
            f"{shape[: grad_output.dim()]}"
        )
    return aligned(grads)


def output_shape(images: Tensor, problem: Problem) -> tuple[int, int, int, int]:
    """[images, out_features, height', width']."""
    return (images.shape[0], problem.out_features, *problem.output_size_of(images.shape[2], images.shape[3]))


def aligned(x: Tensor) -> Tensor:
    """x with its signs in memory, or a copy if its elements straddle their own size (`torch.frombuffer` makes such)."""
    x = x.resolve_neg()
    return x if x.data_ptr() % x.element_size() == 0 else x.clone()


def threads_for(multiplications: int) -> int:
    """torch's threads, or fewer where there is little to do."""
    return min(torch.get_num_threads(), 1 + multiplications // GRAIN)
