"""The `cython` backend: packs tensors into rows of lanes and hands their addresses to the compiled loops."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from sparsebench.builtin.backends._cython_layout import LANES, Layout
from sparsebench.builtin.backends._cython_pack import Scratch, pack_input, pack_output, unpack_input, unpack_output
from sparsebench.builtin.backends._cython_pattern import Pattern, forward_pattern, transposed_pattern
from sparsebench.builtin.backends._images import as_images, as_output_images, output_shape, threads_for
from sparsebench.kernels import _cython
from sparsebench.plugin import Problem, ProblemError, SparseWeight

PACKED_BYTES = 2**20  # images are taken together while they fit in about this much, two L2 caches
MOST_IMAGES = 256
OFFSETS = 2**30  # offsets are int32, and planes are padded a little
SIZES_KEPT = 8


class CythonBackend:
    """Any linear or conv2d layer in float32 or float64. Its kernels share one scratch memory per thread."""

    def __init__(self) -> None:
        self._scratch = Scratch()

    def unsupported(self, problem: Problem) -> str | None:
        """Why not, or None: a dtype without compiled loops, or an image beyond the offsets."""
        if problem.dtype not in ("float32", "float64"):
            return f"its loops are compiled for float32 and float64, not for {problem.dtype}"
        if _elements(problem, problem.height, problem.width) > OFFSETS:
            return "one padded image has more than 2**30 elements, and offsets are int32"
        return None

    def bind(self, problem: Problem, weight: SparseWeight) -> CythonKernel:
        """A kernel with its own copy of the weight."""
        return CythonKernel(problem, weight, self._scratch)


class CythonKernel:
    """One bound weight.

    Offsets depend on the size of the input; those of the sizes seen last are kept. The transposed pattern is built by
    the first backward that asks for grad_input.
    """

    def __init__(self, problem: Problem, weight: SparseWeight, scratch: Scratch) -> None:
        self.problem = problem
        self._scratch = scratch
        self._values = weight.values
        self._forward = forward_pattern(problem, weight, Layout.of(problem, problem.height, problem.width))
        self._transposed: tuple[Pattern, Tensor] | None = None
        self._input_offsets: dict[Layout, Tensor] = {}
        self._output_offsets: dict[Layout, Tensor] = {}
        self.set_values(weight.values)

    def set_values(self, values: Tensor) -> None:
        """Take new values [nnz] in CSR order; the transposed copy follows when grad_input is next asked for."""
        if values.shape != self._values.shape or values.dtype != self._values.dtype:
            raise ProblemError(
                f"values are {values.dtype} {tuple(values.shape)}, but the kernel was bound to "
                f"{self._values.dtype} {tuple(self._values.shape)}; bind a new one"
            )
        self._values = values.detach().clone(memory_format=torch.contiguous_format)
        self._transposed_values: Tensor | None = None

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x [batch, in] or [N, C, H, W] -> [batch, out] or [N, out, H', W'], channels-last if x is."""
        images = as_images(x, self.problem, self._values.dtype)
        bias = None if bias is None else bias.to(x.dtype).contiguous()
        out = torch.empty(output_shape(images, self.problem), dtype=x.dtype, memory_format=_memory_format(x))
        for part, layout in self._parts(images):
            packed = pack_input(images[part], layout, self._scratch)
            unpack_output(out[part], self._multiply(packed, bias, layout), layout)
        return out if x.dim() == 4 else out.flatten(1)

    def backward(
        self, x: Tensor, grad_output: Tensor, needs: tuple[bool, bool] = (True, True), saved: None = None
    ) -> tuple[Tensor | None, Tensor | None]:
        """(grad_input, as x; gradient of the values [nnz]); None for what `needs` does not ask for."""
        images = as_images(x, self.problem, self._values.dtype)
        grads = as_output_images(grad_output, images, self.problem)
        grad_input = torch.empty(images.shape, dtype=x.dtype, memory_format=_memory_format(x)) if needs[0] else None
        grad_values = torch.zeros_like(self._values) if needs[1] else None
        for part, layout in self._parts(images):
            packed_grads = pack_output(grads[part], layout, self._scratch)
            if grad_values is not None:
                self._sample(grad_values, packed_grads, pack_input(images[part], layout, self._scratch), layout)
            if grad_input is not None:
                unpack_input(grad_input[part], self._multiply_transposed(packed_grads, layout), layout)
        return None if grad_input is None else grad_input.reshape(x.shape), grad_values

    def _multiply(self, packed: Tensor, bias: Tensor | None, layout: Layout) -> Tensor:
        """Forward of one part: [out_features, lanes of the outputs]."""
        offsets = _kept(self._input_offsets, layout, self._forward.input_offsets)
        return self._product(self._forward, offsets, self._values, packed, bias, layout.lanes(layout.outputs))

    def _multiply_transposed(self, packed_grads: Tensor, layout: Layout) -> Tensor:
        """grad_input of one part: [planes, lanes of the inputs]."""
        if self._transposed is None:
            self._transposed = transposed_pattern(self.problem, self._forward, layout)
        pattern, order = self._transposed
        if self._transposed_values is None:
            self._transposed_values = self._values[order]
        offsets = _kept(self._output_offsets, layout, pattern.output_offsets)
        lanes = layout.lanes(layout.inputs)
        return self._product(pattern, offsets, self._transposed_values, packed_grads, None, lanes)

    def _product(
        self, pattern: Pattern, offsets: Tensor, values: Tensor, packed: Tensor, bias: Tensor | None, lanes: int
    ) -> Tensor:
        """[rows, lanes] of the compiled product."""
        out = self._scratch.take("product", packed, pattern.rows * lanes).view(pattern.rows, lanes)
        _cython.multiply(
            out.data_ptr(), lanes, packed.data_ptr(), values.data_ptr(), offsets.data_ptr(), pattern.indptr.data_ptr(),
            0 if bias is None else bias.data_ptr(), pattern.rows, lanes,
            itemsize=packed.element_size(), threads=threads_for(values.numel() * lanes),
        )  # fmt: skip
        return out

    def _sample(self, grad_values: Tensor, packed_grads: Tensor, packed: Tensor, layout: Layout) -> None:
        """Add one part's gradient of the values."""
        offsets = _kept(self._input_offsets, layout, self._forward.input_offsets)
        lanes, size = layout.lanes(layout.outputs), packed.element_size()
        _cython.sample(
            grad_values.data_ptr(), packed_grads.data_ptr() + layout.lead * layout.images * size, layout.output_stride,
            packed.data_ptr(), offsets.data_ptr(), self._forward.indptr.data_ptr(), self._forward.rows, lanes,
            itemsize=size, threads=threads_for(offsets.numel() * lanes),
        )  # fmt: skip

    def _parts(self, images: Tensor) -> Iterator[tuple[slice, Layout]]:
        """Slices of the batch that are packed together, and how."""
        count, _, height, width = images.shape
        each = _elements(self.problem, height, width)
        if each > OFFSETS:
            raise ProblemError(
                f"one image {tuple(images.shape[1:])} has more than 2**30 elements when padded; offsets are int32"
            )
        step = min(MOST_IMAGES, max(LANES, PACKED_BYTES // (each * images.element_size())), OFFSETS // each)
        for start in range(0, count, step):
            taken = min(step, count - start)
            yield slice(start, start + taken), Layout.of(self.problem, height, width, taken, images.element_size())


def _elements(problem: Problem, height: int, width: int) -> int:
    """Elements of one packed image, or of its packed output if that is larger."""
    layout = Layout.of(problem, height, width)
    packed = problem.in_features * len(layout.phases) * (layout.reach + layout.outputs)
    return max(packed, problem.out_features * (layout.lead + layout.first + layout.inputs))


def _kept(kept: dict[Layout, Tensor], layout: Layout, make: Callable[[Layout], Tensor]) -> Tensor:
    """The table of one layout, made if it is not among the last few."""
    if layout not in kept:
        if len(kept) == SIZES_KEPT:
            kept.clear()
        kept[layout] = make(layout)
    return kept[layout]


def _memory_format(x: Tensor) -> torch.memory_format:
    """Channels-last for what is that and nothing else."""
    last = x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format
