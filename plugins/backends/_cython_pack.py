"""Packs tensors into rows of lanes and back: the only part of the `cython` backend that sees strides."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sparsebench.builtin.backends._cython_layout import Layout
from sparsebench.kernels import _cython

GRAIN = 2**15  # elements worth another thread


def pack_input(x: Tensor, layout: Layout) -> Tensor:
    """x [images, channels, height, width] as planes (channel, phase), `layout.input_stride` apart; padding is zero."""
    phases = len(layout.phases)
    packed = _scratch(x, x.shape[1] * phases * layout.input_stride, layout)
    for pixels, view in _phase_views(x, packed, layout, layout.input_stride, 0):
        _copy(view, pixels)
    return packed


def pack_output(grad_output: Tensor, layout: Layout) -> Tensor:
    """grad_output [images, features, height', width'] as planes `layout.output_stride` apart, zero outside the outputs."""
    packed = _scratch(grad_output, grad_output.shape[1] * layout.output_stride, layout)
    start, image = layout.lead * layout.images, layout.images
    view = packed.as_strided(grad_output.shape, (1, layout.output_stride, layout.pitch * image, image), start)
    _copy(view, grad_output)
    return packed


def unpack_output(out: Tensor, lanes: Tensor, layout: Layout) -> None:
    """Fill out [images, features, height', width'] from `lanes` [features, lanes of the outputs]."""
    image = layout.images
    _copy(out, lanes.as_strided(out.shape, (1, lanes.shape[1], layout.pitch * image, image)))


def unpack_input(grad_input: Tensor, lanes: Tensor, layout: Layout) -> None:
    """Fill grad_input [images, channels, height, width] from `lanes` [planes, lanes of the inputs]."""
    if len(layout.phases) < layout.down.stride * layout.across.stride:
        grad_input.zero_()  # pixels that no window meets
    for pixels, view in _phase_views(grad_input, lanes, layout, lanes.shape[1], layout.first):
        _copy(pixels, view)


def _phase_views(
    pixels: Tensor, packed: Tensor, layout: Layout, stride: int, first: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Each phase's pixels, and the same pixels in `packed`, whose planes are `stride` apart and begin at `first`."""
    image, phases = layout.images, layout.phases
    for i, (phase_y, phase_x) in enumerate(phases):
        rows, top = layout.down.pixels(phase_y)
        columns, left = layout.across.pixels(phase_x)
        part = pixels[:, :, rows, columns]
        start = i * stride + (top * layout.pitch + left - first) * image
        yield part, packed.as_strided(part.shape, (1, len(phases) * stride, layout.pitch * image, image), start)


def _scratch(like: Tensor, elements: int, layout: Layout) -> Tensor:
    return like.new_empty(elements) if layout.gapless else like.new_zeros(elements)


def _copy(target: Tensor, source: Tensor) -> None:
    """target[...] = source, four dimensions, any strides."""
    if source.shape[2] == source.shape[3] == 1:  # blocks are cut from the first and the last dimension
        target, source = target.transpose(1, 3), source.transpose(1, 3)
    threads = min(torch.get_num_threads(), 1 + source.numel() // GRAIN)
    _cython.copy(
        target.data_ptr(), target.stride(), source.data_ptr(), source.stride(), source.shape,
        itemsize=source.element_size(), threads=threads,
    )  # fmt: skip
