"""Adapter of SparseProp 0.1.14: its compiled kernels, called as its own autograd functions call them.

1. Its index arrays are built here from the CSR: its own conversion drops explicit zeros.
2. It reads raw memory: channels-last, expanded or offset tensors would be misread, or crash its aligned transpose.
   So everything is handed over contiguous and aligned.
3. For conv2d with stride 1 its authors time two kernels, vectorized over the batch and over the output row, and keep
   the faster (`run_and_choose`): so does `bind`. With stride 2 only the first is used: the other writes one element
   past the end of each gradient plane, which is another thread's.
4. Its conv2d over the batch is wrong in the last batch % 8 images: for four neighbouring outputs at a time it finishes
   only the first. So the batch is padded with zeros to a multiple of 8, within the copy that the layout needs anyway.
5. Threads: plain OpenMP regions in the runtime torch uses, so `torch.set_num_threads` governs them.
6. Its backward always computes both gradients, whatever is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor

from sparsebench.builtin.backends._fastest import fastest
from sparsebench.builtin.backends._lowered import aligned
from sparsebench.plugin import Problem, SparseWeight, UnsupportedError

_MAX_CONV_NNZ = 1_000_000  # its backward reduces into an array of all values on every thread's stack of 8 MiB
_MAX_INT16 = 2**15 - 1
_LANES, _BLOCK = 8, 16  # of its vectors, of its transpose


class SparseProp:
    """The backend."""

    def unsupported(self, problem: Problem) -> str | None:
        """The faults of version 0.1.14, each in one sentence."""
        if problem.dtype != "float32":
            return f"SparseProp turns {problem.dtype} into float32 silently"
        if max(problem.in_features, problem.out_features) * problem.positions >= 2**31:
            return "SparseProp addresses activations with 32-bit integers"
        return _unsupported_conv2d(problem) if problem.op == "conv2d" else None

    def bind(self, problem: Problem, weight: SparseWeight) -> SparsePropLinear | SparsePropConv2d:
        """A kernel; conv2d with stride 1 first races the two vectorizations."""
        library = import_module("sparseprop").backend
        if problem.op == "linear":
            return SparsePropLinear(library, weight)
        if weight.nnz > _MAX_CONV_NNZ:
            raise UnsupportedError(_stack_reason(weight.nnz))
        kernel = SparsePropConv2d(library, problem, weight, over_row=False)
        return _faster(problem, kernel) if problem.stride == (1, 1) and weight.nnz else kernel


def _unsupported_conv2d(problem: Problem) -> str | None:
    nnz = round((1 - problem.sparsity) * problem.columns * problem.out_features)
    reasons = (
        (problem.groups != 1, "SparseProp returns NaN for groups"),
        (problem.dilation != (1, 1), "SparseProp ignores dilation"),
        (
            problem.stride not in ((1, 1), (2, 2)),
            "SparseProp has stride 1 and 2 only, the same in both directions",
        ),
        (problem.padding[0] != problem.padding[1], "SparseProp takes one padding for both directions"),
        (
            problem.kernel_size[0] != problem.kernel_size[1],
            "SparseProp corrupts memory for a kernel that is not square",
        ),
        (problem.columns > _MAX_INT16, "SparseProp counts the non-zeros of an output channel in 16 bits"),
        (nnz > _MAX_CONV_NNZ, _stack_reason(nnz)),
    )
    return next((reason for fault, reason in reasons if fault), None)


def _stack_reason(nnz: int) -> str:
    return f"SparseProp sums the gradient of all {nnz} values on the stack: at most {_MAX_CONV_NNZ} are safe"


class _Kernel:
    """What both ops share: the library and the values, as NumPy sees the same memory."""

    note = "backward always computes both gradients"

    def __init__(self, library: ModuleType, weight: SparseWeight) -> None:
        self.library = library
        self.rows = weight.rows
        self.values = weight.values.clone()

    def set_values(self, values: Tensor) -> None:
        """Copy new values [nnz]."""
        self.values.copy_(values)


class SparsePropLinear(_Kernel):
    """Vectorized over the batch: works on [features, batch]."""

    def __init__(self, library: ModuleType, weight: SparseWeight) -> None:
        super().__init__(library, weight)
        self.index = (weight.indptr.clone().numpy(), weight.indices.clone().numpy())

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """[batch, out], a transposed view."""
        return self.forward_saving(x, bias)[0]

    def forward_saving(self, x: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The output, and the transposed input for backward, which SparseProp saves as well."""
        inputs = self._transposed(x)
        out = torch.zeros(self.rows, x.shape[0])
        self.library.sparse_linear_vectorized_forward(inputs.numpy(), *self.index, self.values.numpy(), out.numpy())
        if bias is not None:
            out += bias[:, None]
        return out.t(), inputs

    def backward(
        self,
        x: Tensor,
        grad_output: Tensor,
        needs: tuple[bool, bool] = (True, True),
        saved: Tensor | None = None,
    ) -> tuple[Tensor | None, Tensor | None]:
        """(grad_input, gradient of the values)."""
        inputs = self._transposed(x) if saved is None else saved
        grad_input, grad_values = torch.zeros_like(inputs), torch.zeros_like(self.values)
        if any(needs):
            self.library.sparse_linear_vectorized_backward(
                inputs.numpy(), *self.index, self.values.numpy(), self._transposed(grad_output).numpy(),
                grad_input.numpy(), grad_values.numpy(),
            )  # fmt: skip
        return grad_input.t() if needs[0] else None, grad_values if needs[1] else None

    def _transposed(self, matrix: Tensor) -> Tensor:
        """[features, batch], by SparseProp's own transpose where it can: it takes a third of the time of torch's."""
        if matrix.shape[0] % _BLOCK or matrix.shape[1] % _BLOCK:
            return matrix.t().contiguous()
        out = torch.empty(matrix.shape[1], matrix.shape[0])
        self.library.transpose(aligned(matrix).numpy(), out.numpy(), _BLOCK)
        return out


class SparsePropConv2d(_Kernel):
    """Vectorized over the output row ([N, C, H, W], stride 1) or over the batch ([C, H, W, N])."""

    def __init__(self, library: ModuleType, problem: Problem, weight: SparseWeight, over_row: bool) -> None:
        super().__init__(library, weight)
        self.problem = problem
        self.index = tuple(part.numpy() for part in _conv2d_index(weight))
        self.select(over_row)

    def select(self, over_row: bool) -> None:
        """Choose the vectorization."""
        name = "over_on_stride_1" if over_row else f"stride_{self.problem.stride[0]}"
        self.run_forward = getattr(self.library, f"sparse_conv2d_vectorized_forward_{name}")
        self.run_backward = getattr(self.library, f"sparse_conv2d_vectorized_backward_{name}")
        self.over_row = over_row
        self.note = f"vectorized over the {'output row' if over_row else 'batch'}; {_Kernel.note}"

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """[N, out, H', W']."""
        return self.forward_saving(x, bias)[0]

    def forward_saving(self, x: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The output, and the input in the kernel's layout for backward, which SparseProp saves as well."""
        inputs = self._pack(x)
        height, width = self.problem.output_size_of(x.shape[2], x.shape[3])
        size = (self.rows, height, width)
        out = torch.zeros((x.shape[0], *size) if self.over_row else (*size, inputs.shape[3]))
        if self.values.numel():
            self.run_forward(inputs.numpy(), *self.index, self.values.numpy(), out.numpy(), *self._sizes())
        out = self._unpack(out, x.shape[0])
        if bias is not None:
            out += bias[:, None, None]
        return out, inputs

    def backward(
        self,
        x: Tensor,
        grad_output: Tensor,
        needs: tuple[bool, bool] = (True, True),
        saved: Tensor | None = None,
    ) -> tuple[Tensor | None, Tensor | None]:
        """(grad_input, gradient of the values)."""
        inputs = self._pack(x) if saved is None else saved
        grad_input, grad_values = torch.zeros_like(inputs), torch.zeros_like(self.values)
        if any(needs) and self.values.numel():
            grad = self._pack(grad_output)
            self.run_backward(
                inputs.numpy(), *self.index, self.values.numpy(), grad.numpy(), grad_input.numpy(),
                grad_values.numpy(), *self._sizes(),
            )  # fmt: skip
        return self._unpack(grad_input, x.shape[0]) if needs[0] else None, grad_values if needs[1] else None

    def _pack(self, images: Tensor) -> Tensor:
        """[N, C, H, W] in the layout of the kernel, contiguous: as it is, or [C, H, W, N rounded up]."""
        if self.over_row:
            return images.contiguous()
        batch = images.shape[0]
        missing = -batch % _LANES
        if not missing:
            return images.permute(1, 2, 3, 0).contiguous()
        packed = images.new_zeros(*images.shape[1:], batch + missing)
        packed[..., :batch] = images.permute(1, 2, 3, 0)
        return packed

    def _unpack(self, packed: Tensor, batch: int) -> Tensor:
        return packed if self.over_row else packed[..., :batch].permute(3, 0, 1, 2)

    def _sizes(self) -> tuple[int, int]:
        return self.problem.kernel_size[0], self.problem.padding[0]


def _conv2d_index(weight: SparseWeight) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """SparseProp's index: row starts, starts of the input channels within each row, kernel positions.

    int32 [out + 1], int16 [out · (in + 1)], and uint8 [nnz] twice: row and column in the kernel of every non-zero.
    """
    rows, channels, height, width = weight.shape
    channel = weight.indices.long() // (height * width)
    counts = torch.bincount(weight.row_ids() * channels + channel, minlength=rows * channels).view(rows, channels)
    starts = torch.cat([counts.new_zeros(rows, 1), counts.cumsum(1)], 1).to(torch.int16).reshape(-1)
    ky = (weight.indices // width % height).to(torch.uint8)
    return weight.indptr.clone(), starts, ky, (weight.indices % width).to(torch.uint8)


def _faster(problem: Problem, kernel: SparsePropConv2d) -> SparsePropConv2d:
    """The kernel, set to the vectorization that does forward and backward of the problem sooner."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(problem.input_shape, generator=generator)
    grad = torch.randn(problem.output_shape, generator=generator)

    def passes(over_row: bool) -> Callable[[], None]:
        def run() -> None:
            kernel.select(over_row)
            kernel.backward(x, grad, saved=kernel.forward_saving(x)[1])

        return run

    kernel.select(fastest({"batch": passes(False), "row": passes(True)}) == "row")
    return kernel
