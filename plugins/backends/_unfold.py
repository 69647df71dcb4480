"""im2col and its adjoint as strided copies, with the images beside the output pixels: [channels·kh·kw, N·H'·W']."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from sparsebench.plugin import Problem


def unfold(problem: Problem, x: Tensor) -> Tensor:
    """The patches of x [N, C, H, W] as a contiguous matrix [C·kh·kw, N·H'·W'], in one copy.

    `torch.nn.functional.unfold` puts the image first, which would cost another copy of the largest tensor.
    """
    (kh, kw), (sh, sw), (dh, dw) = problem.kernel_size, problem.stride, problem.dilation
    images, channels, height, width = x.shape
    oh, ow = problem.output_size_of(height, width)
    if problem.padding != (0, 0):
        ph, pw = problem.padding
        x = functional.pad(x, (pw, pw, ph, ph))
    sn, sc, sy, sx = x.stride()
    patches = x.as_strided(
        (channels, kh, kw, images, oh, ow), (sc, dh * sy, dw * sx, sn, sh * sy, sw * sx), x.storage_offset()
    )
    return patches.reshape(channels * kh * kw, images * oh * ow)


def fold(problem: Problem, patches: Tensor, shape: torch.Size) -> Tensor:
    """The adjoint of `unfold`: sums patches [C·kh·kw, N·H'·W'] into a new tensor of `shape` [N, C, H, W]."""
    (kh, kw), (sh, sw), (dh, dw) = problem.kernel_size, problem.stride, problem.dilation
    ph, pw = problem.padding
    images, channels, height, width = shape
    oh, ow = problem.output_size_of(height, width)
    parts = patches.view(channels, kh, kw, images, oh, ow)
    padded = patches.new_zeros(channels, images, height + 2 * ph, width + 2 * pw)
    for ky in range(kh):
        for kx in range(kw):
            y, x = ky * dh, kx * dw
            padded[:, :, y : y + (oh - 1) * sh + 1 : sh, x : x + (ow - 1) * sw + 1 : sw] += parts[:, ky, kx]
    return padded[:, :, ph : ph + height, pw : pw + width].transpose(0, 1)
