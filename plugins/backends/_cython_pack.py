"""Packs tensors into rows of lanes and back: the only part of the `cython` backend that sees strides."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import torch
from torch import Tensor

from sparsebench.builtin.backends._cython_layout import Layout
from sparsebench.kernels import _cython

GRAIN = 2**15  # elements worth another thread


class Scratch(threading.local):
    """Memory that calls reuse, one set per thread: fresh pages cost more than what is done with them.

    Nothing in it outlives a call, so kernels share it. It is as large as the largest call needed.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[str, torch.dtype], Tensor] = {}

    def take(self, role: str, like: Tensor, elements: int) -> Tensor:
        """[elements] of like's dtype, with whatever is in it."""
        key = (role, like.dtype)
        if key not in self._kept or self._kept[key].numel() < elements:
            self._kept[key] = like.new_empty(elements)
        return self._kept[key][:elements]


def pack_input(x: Tensor, layout: Layout, scratch: Scratch) -> Tensor:
    """x [images, channels, height, width] as planes (channel, phase), `layout.input_stride` apart; padding is zero."""
    packed = scratch.take("input", x, x.shape[1] * len(layout.phases) * layout.input_stride)
    if not layout.gapless:
        packed.zero_()
    for pixels, view in _phase_views(x, packed, layout, layout.input_stride, 0):
        _copy(view, pixels, pixels)
    return packed


def pack_output(grad_output: Tensor, layout: Layout, scratch: Scratch) -> Tensor:
    """grad_output [images, features, height', width'] as planes, `layout.output_stride` apart; zero between outputs."""
    packed = scratch.take("output", grad_output, grad_output.shape[1] * layout.output_stride)
    if not layout.gapless:
        packed.zero_()
    view = _view(packed, grad_output, layout, layout.output_stride, layout.lead * layout.images)
    _copy(view, grad_output, grad_output)
    return packed


def unpack_output(out: Tensor, lanes: Tensor, layout: Layout) -> None:
    """Fill out [images, features, height', width'] from `lanes` [features, lanes of the outputs]."""
    _copy(out, _view(lanes, out, layout, lanes.shape[1], 0), out)


def unpack_input(grad_input: Tensor, lanes: Tensor, layout: Layout) -> None:
    """Fill grad_input [images, channels, height, width] from `lanes` [planes, lanes of the inputs]."""
    if len(layout.phases) < layout.down.stride * layout.across.stride:
        grad_input.zero_()  # pixels that no window meets
    for pixels, view in _phase_views(grad_input, lanes, layout, lanes.shape[1], layout.first):
        _copy(pixels, view, pixels)


def _phase_views(
    pixels: Tensor, packed: Tensor, layout: Layout, stride: int, first: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Each phase's pixels, and the same pixels in `packed`, whose planes are `stride` apart and begin at `first`."""
    for i, (phase_y, phase_x) in enumerate(layout.phases):
        rows, top = layout.down.pixels(phase_y)
        columns, left = layout.across.pixels(phase_x)
        part = pixels[:, :, rows, columns]
        start = i * stride + (top * layout.pitch + left - first) * layout.images
        yield part, _view(packed, part, layout, len(layout.phases) * stride, start)


def _view(packed: Tensor, like: Tensor, layout: Layout, stride: int, start: int) -> Tensor:
    """`packed` as [images, channels, rows, columns] of like's shape, from `start` on, channels `stride` apart."""
    return packed.as_strided(like.shape, (1, stride, layout.pitch * layout.images, layout.images), start)


def _copy(target: Tensor, source: Tensor, unpacked: Tensor) -> None:
    """target[...] = source, of four dimensions; `unpacked` is the one whose strides are not ours to choose."""
    if unpacked.shape[3] == 1 or unpacked.stride(1) < unpacked.stride(3):
        target, source = target.transpose(1, 3), source.transpose(1, 3)
    threads = min(torch.get_num_threads(), 1 + source.numel() // GRAIN)
    _cython.copy(
        target.data_ptr(), target.stride(), source.data_ptr(), source.stride(), source.shape,
        itemsize=source.element_size(), threads=threads,
    )  # fmt: skip
