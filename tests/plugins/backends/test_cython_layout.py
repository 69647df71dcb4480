"""The geometry of packed planes: every tap of every window finds its pixel, or a zero, at a constant distance."""

import itertools

import pytest

from sparsebench.builtin.backends._cython_layout import LANES, Layout
from sparsebench.problem import Problem


def axis_problem(size: int, kernel: int, stride: int, padding: int, dilation: int) -> Problem | None:
    if size + 2 * padding < dilation * (kernel - 1) + 1:
        return None
    return Problem(
        op="conv2d", in_features=1, out_features=1, height=size, width=size, kernel_size=(kernel, kernel),
        stride=(stride, stride), padding=(padding, padding), dilation=(dilation, dilation),
    )  # fmt: skip


GEOMETRIES = [
    problem
    for values in itertools.product((1, 2, 5, 6), (1, 2, 3), (1, 2, 3), (0, 1, 2), (1, 2))
    if (problem := axis_problem(*values)) is not None
]


def pixels(layout: Layout, phase: tuple[int, int]) -> dict[int, tuple[int, int]]:
    """Position in the plane of a phase -> the pixel that is packed there."""
    (rows, top), (columns, left) = layout.down.pixels(phase[0]), layout.across.pixels(phase[1])
    return {
        (top + i) * layout.pitch + left + j: (y, x)
        for i, y in enumerate(range(layout.down.size)[rows])
        for j, x in enumerate(range(layout.across.size)[columns])
    }


def test_every_tap_finds_its_pixel_or_a_zero() -> None:
    for problem in GEOMETRIES:
        layout = Layout.of(problem, problem.height, problem.width)
        planes = {phase: pixels(layout, phase) for phase in layout.phases}
        stride, padding, dilation = problem.stride[0], problem.padding[0], problem.dilation[0]
        taps, outputs = range(problem.kernel_size[0]), range(layout.down.outputs)
        for tap_y, tap_x, out_y, out_x in itertools.product(taps, taps, outputs, outputs):
            plane = planes[tap_y * dilation % stride, tap_x * dilation % stride]
            step = tap_y * dilation // stride * layout.pitch + tap_x * dilation // stride
            pixel = (out_y * stride + tap_y * dilation - padding, out_x * stride + tap_x * dilation - padding)
            inside = all(0 <= i < problem.height for i in pixel)
            assert plane.get(out_y * layout.pitch + out_x + step) == (pixel if inside else None), problem


def test_nothing_lies_outside_its_plane() -> None:
    for problem in GEOMETRIES:
        layout = Layout.of(problem, problem.height, problem.width, images=3)
        for phase in layout.phases:
            positions = pixels(layout, phase)
            assert not positions or layout.first <= min(positions) <= max(positions) < layout.first + layout.inputs
        assert (layout.first + layout.inputs) * 3 <= layout.input_stride
        assert layout.reach * 3 + layout.lanes(layout.outputs) <= layout.input_stride
        assert layout.lead + layout.first >= layout.reach
        assert (layout.lead + layout.first) * 3 + layout.lanes(layout.inputs) <= layout.output_stride


@pytest.mark.parametrize("itemsize", [4, 8])
def test_planes_are_an_odd_number_of_cache_lines_apart(itemsize: int) -> None:
    for problem in GEOMETRIES:
        layout = Layout.of(problem, problem.height, problem.width, 16, itemsize)
        for stride in (layout.input_stride, layout.output_stride):
            assert stride * itemsize % 128 == 64


def test_only_planes_without_padding_or_gaps_are_gapless() -> None:
    for problem in GEOMETRIES:
        layout = Layout.of(problem, problem.height, problem.width, images=16)
        filled = all(len(pixels(layout, phase)) == layout.outputs + layout.reach for phase in layout.phases)
        assert not layout.gapless or filled
    assert Layout.of(Problem(op="linear", in_features=8, out_features=8), 1, 1, images=LANES).gapless
    assert not Layout.of(Problem(op="linear", in_features=8, out_features=8), 1, 1, images=LANES + 1).gapless
