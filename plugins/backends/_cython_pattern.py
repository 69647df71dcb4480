"""The non-zeros of a weight as rows that read planes: forward's pattern, grad_input's, and their offsets in memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsebench.builtin.backends._cython_layout import Layout
from sparsebench.plugin import Problem, SparseWeight


@dataclass(frozen=True)
class Pattern:
    """Rows of non-zeros; each reads one plane, at a step of the window.

    `indptr` is int32 [rows + 1]; `plane`, `down` and `across` are int64 [nnz]; a plane is channel · phases + phase.
    """

    indptr: Tensor
    plane: Tensor
    down: Tensor
    across: Tensor

    @property
    def rows(self) -> int:
        """Rows of the product."""
        return self.indptr.numel() - 1

    def input_offsets(self, layout: Layout) -> Tensor:
        """Where forward reads the packed input for each non-zero: int32 [nnz], in elements."""
        steps = self.down * layout.pitch + self.across
        return (self.plane * layout.input_stride + steps * layout.images).to(torch.int32)

    def output_offsets(self, layout: Layout) -> Tensor:
        """Where grad_input, on the transposed pattern, reads the packed grad_output: int32 [nnz], in elements."""
        steps = layout.lead + layout.first - self.down * layout.pitch - self.across
        return (self.plane * layout.output_stride + steps * layout.images).to(torch.int32)


def forward_pattern(problem: Problem, weight: SparseWeight, layout: Layout) -> Pattern:
    """Rows are output features, planes those of the input."""
    height, width = problem.kernel_size
    column, row = weight.indices.long(), weight.row_ids()
    tap_y, tap_x = column // width % height, column % width
    group = row // (problem.out_features // problem.groups)
    channel = group * (problem.in_features // problem.groups) + column // (height * width)
    down, phase_y = _step(tap_y * problem.dilation[0], problem.stride[0], layout.down.phases)
    across, phase_x = _step(tap_x * problem.dilation[1], problem.stride[1], layout.across.phases)
    plane = (channel * len(layout.down.phases) + phase_y) * len(layout.across.phases) + phase_x
    return Pattern(weight.indptr.contiguous(), plane, down, across)


def transposed_pattern(problem: Problem, forward: Pattern, layout: Layout) -> tuple[Pattern, Tensor]:
    """(rows are the input's planes, planes output features; the position in CSR order of each of its values)."""
    planes = problem.in_features * len(layout.phases)
    order = torch.argsort(forward.plane, stable=True)
    indptr = torch.zeros(planes + 1, dtype=torch.int32)
    indptr[1:] = torch.bincount(forward.plane, minlength=planes).cumsum(0)
    row = torch.repeat_interleave(torch.arange(forward.rows), forward.indptr.diff().long())
    return Pattern(indptr, row[order], forward.down[order], forward.across[order]), order


def _step(distance: Tensor, stride: int, phases: list[int]) -> tuple[Tensor, Tensor]:
    """A tap's distance from the window's first, as (step within its phase, index of the phase)."""
    return distance // stride, torch.searchsorted(torch.tensor(phases), distance % stride)
