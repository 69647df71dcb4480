"""Where everything lies in memory when a layer becomes rows of lanes: the geometry that the `cython` kernel runs on.

A plane (one channel of a few images) is stored as positions with the images innermost. All rows of a plane have the
same `pitch`, so moving the window by one row or column is a constant distance. The zeros between two rows serve the end
of the one and the beginning of the next. With a stride s, a plane is split into its s·s *phases* (every s-th row and
column), in which the window again moves by one; only phases that the window meets are stored. Linear has one position.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

from sparsebench.plugin import Problem

LANES = 16  # lanes come in multiples of this
LINE = 64  # bytes of a cache line


@dataclass(frozen=True)
class Axis:
    """One spatial axis of a convolution, of `size` pixels and `outputs` output pixels."""

    size: int
    kernel: int
    stride: int
    padding: int
    dilation: int
    outputs: int

    @cached_property
    def reach(self) -> int:
        """How far the window's last tap lies behind its first, in positions of a phase."""
        return (self.kernel - 1) * self.dilation // self.stride

    @cached_property
    def first(self) -> int:
        """The first position of any phase that holds a pixel and not padding."""
        return self.padding // self.stride

    @cached_property
    def last(self) -> int:
        """The last position of any phase that holds a pixel."""
        return (self.size + self.padding - 1) // self.stride

    @cached_property
    def phases(self) -> list[int]:
        """The phases that the window meets, ascending."""
        return sorted({tap * self.dilation % self.stride for tap in range(self.kernel)})

    def pixels(self, phase: int) -> tuple[slice, int]:
        """(the pixels that a phase holds, the position of the first of them)."""
        start = (phase - self.padding) % self.stride
        return slice(start, None, self.stride), (start + self.padding) // self.stride


@dataclass(frozen=True)
class Layout:
    """Positions and strides (in elements) of packed planes for `images` images of one size."""

    down: Axis
    across: Axis
    images: int
    itemsize: int

    @staticmethod
    @lru_cache(maxsize=256)
    def of(problem: Problem, height: int, width: int, images: int = 1, itemsize: int = 4) -> Layout:
        """The layout of a problem's input [images, in_features, height, width]."""
        sizes = zip((height, width), problem.output_size_of(height, width), strict=True)
        down, across = (
            Axis(size, problem.kernel_size[i], problem.stride[i], problem.padding[i], problem.dilation[i], outputs)
            for i, (size, outputs) in enumerate(sizes)
        )
        return Layout(down, across, images, itemsize)

    @cached_property
    def pitch(self) -> int:
        """Positions from one row of a plane to the next: one row's pixels and one side's padding."""
        return max(-(-(self.across.size + self.across.padding) // self.across.stride), self.across.outputs)

    @cached_property
    def phases(self) -> list[tuple[int, int]]:
        """(row phase, column phase) of the planes stored for each channel."""
        return [(y, x) for y in self.down.phases for x in self.across.phases]

    @cached_property
    def outputs(self) -> int:
        """Positions from the first output to the last."""
        return (self.down.outputs - 1) * self.pitch + self.across.outputs

    @cached_property
    def reach(self) -> int:
        """The largest distance that the window adds to a position."""
        return self.down.reach * self.pitch + self.across.reach

    @cached_property
    def first(self) -> int:
        """The first position of a plane that can hold a pixel."""
        return self.down.first * self.pitch + self.across.first

    @cached_property
    def inputs(self) -> int:
        """Positions from `first` to the last that can hold a pixel."""
        return self.down.last * self.pitch + self.across.last - self.first + 1

    @cached_property
    def lead(self) -> int:
        """Zero positions before the outputs of a packed grad_output, so that no window begins before the plane."""
        return max(0, self.reach - self.first)

    def lanes(self, positions: int) -> int:
        """Lanes of so many positions, padded to whole tiles."""
        return -(-positions * self.images // LANES) * LANES

    @cached_property
    def input_stride(self) -> int:
        """Elements from one packed input plane to the next."""
        return self._spread(max(self.reach * self.images + self.lanes(self.outputs),
                                (self.first + self.inputs) * self.images))  # fmt: skip

    @cached_property
    def output_stride(self) -> int:
        """Elements from one packed grad_output plane to the next."""
        end = self.lead + self.first
        return self._spread(max(self.lead * self.images + self.lanes(self.outputs),
                                end * self.images + self.lanes(self.inputs)))  # fmt: skip

    @cached_property
    def gapless(self) -> bool:
        """Whether a packed plane is pixels only, so that its memory needs no zeros first."""
        plain = self.reach == 0 and self.down.padding == 0 and self.across.padding == 0
        pixels = self.down.outputs * self.across.outputs
        return plain and pixels == self.outputs == self.inputs and pixels * self.images % LANES == 0

    def _spread(self, elements: int) -> int:
        """At least so many elements, as an odd number of cache lines: else planes would share the sets of a cache."""
        return (-(-elements * self.itemsize // LINE) | 1) * LINE // self.itemsize
