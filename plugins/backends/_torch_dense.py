"""Dense kernels by direct aten calls, so that `needs` is respected exactly, in float32, float64 or bfloat16.

For conv2d the baseline is the better of NCHW and channels-last on the problem at hand: `bind` measures both,
forward and backward together, as a model keeps one layout for both; a case of one pass alone may favour the other.
backward gives the gradient of the whole dense weight (`dense_grad`); that no one needs the pruned part of it is the
host's business, outside the clock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from sparsebench.builtin.backends._fastest import fastest
from sparsebench.plugin import Problem, SparseWeight

_TINY_FLOP = 2e6  # under it the call overhead decides, and that is the same in both layouts
_FORMATS = {"nchw": torch.contiguous_format, "channels-last": torch.channels_last}


class TorchDense:
    """The backend in the problem's own dtype; `layout` is "auto", "nchw" or "channels-last" (conv2d only)."""

    compute_dtype: torch.dtype | None = None
    dense = True  # model cases leave their layers as they are

    def __init__(self, layout: str = "auto") -> None:
        self.layout = layout

    def unsupported(self, problem: Problem) -> str | None:
        """Nothing is."""
        return None

    def bind(self, problem: Problem, weight: SparseWeight) -> DenseLinear | DenseConv2d:
        """A kernel over the dense weight; conv2d may first race the two layouts."""
        dtype = self.compute_dtype or weight.values.dtype
        if problem.op == "linear":
            return DenseLinear(weight, dtype)
        layout = self.layout
        if layout == "auto":
            layout = faster_layout(_geometry(problem), dtype, torch.get_num_threads())
        return DenseConv2d(problem, weight, dtype, layout)


class TorchDenseBfloat16(TorchDense):
    """The backend in bfloat16: the weight is kept so, activations are cast inside the call, as by autocast."""

    compute_dtype = torch.bfloat16
    dense = False  # other arithmetic than the layers themselves


class _Dense:
    """What both ops share: the dense weight in the arithmetic's dtype, and casting in and out."""

    dense_grad = True

    def __init__(self, weight: SparseWeight, dtype: torch.dtype, memory_format: torch.memory_format) -> None:
        self.dtype = dtype
        self.outer_dtype = weight.values.dtype
        self.weight = torch.zeros(weight.shape, dtype=dtype).contiguous(memory_format=memory_format)
        # where each element lies in memory, so that values are written in place whatever the format
        places = torch.arange(self.weight.numel()).as_strided(weight.shape, self.weight.stride())
        self.positions = places.reshape(-1)[weight.flat_ids()]
        self.flat = self.weight.as_strided((self.weight.numel(),), (1,))
        self.set_values(weight.values)
        slow = dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported()
        self.note = "this CPU has no bfloat16 instructions" if slow else ""

    def set_values(self, values: Tensor) -> None:
        """Write values [nnz] into the dense weight."""
        self.flat[self.positions] = values.to(self.dtype)

    def _in(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.dtype)

    def _out(self, tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.to(self.outer_dtype)


class DenseLinear(_Dense):
    """x [batch, in] @ weight.T."""

    def __init__(self, weight: SparseWeight, dtype: torch.dtype) -> None:
        super().__init__(weight, dtype, torch.contiguous_format)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """[batch, out]."""
        if bias is not None and self.dtype == self.outer_dtype:
            return torch.addmm(bias, x, self.weight.t())
        return _add_bias(torch.mm(self._in(x), self.weight.t()).to(self.outer_dtype), bias)

    def backward(
        self, x: Tensor, grad_output: Tensor, needs: tuple[bool, bool] = (True, True)
    ) -> tuple[Tensor | None, Tensor | None]:
        """(grad_input, gradient of the dense weight [out, in])."""
        grad = self._in(grad_output)
        grad_input = torch.mm(grad, self.weight) if needs[0] else None
        grad_weight = torch.mm(grad.t(), self._in(x)) if needs[1] else None
        return self._out(grad_input), self._out(grad_weight)


class DenseConv2d(_Dense):
    """torch's convolution with the weight in one memory format."""

    def __init__(self, problem: Problem, weight: SparseWeight, dtype: torch.dtype, layout: str) -> None:
        super().__init__(weight, dtype, _FORMATS[layout])
        self.problem = problem
        self.memory_format = layout if layout == "channels-last" else None
        self.note = "; ".join(filter(None, ("NCHW" if layout == "nchw" else layout, self.note)))
        self._format = _FORMATS[layout]

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """[N, out, H', W']."""
        p = self.problem
        inner_bias = bias if self.dtype == self.outer_dtype else None
        out = torch.conv2d(self._in(x), self.weight, inner_bias, p.stride, p.padding, p.dilation, p.groups)
        return out if inner_bias is not None else _add_bias(out.to(self.outer_dtype), bias)

    def backward(
        self, x: Tensor, grad_output: Tensor, needs: tuple[bool, bool] = (True, True)
    ) -> tuple[Tensor | None, Tensor | None]:
        """(grad_input, gradient of the dense weight [out, in/groups, kh, kw])."""
        p = self.problem
        if not any(needs):
            return None, None
        grad_input, grad_weight, _ = torch.ops.aten.convolution_backward(
            self._in(grad_output), self._in(x), self.weight, None, p.stride, p.padding, p.dilation,
            False, [0, 0], p.groups, [needs[0], needs[1], False],
        )  # fmt: skip
        return self._out(grad_input), self._out(grad_weight)

    def _in(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.dtype, memory_format=self._format)


def _add_bias(out: Tensor, bias: Tensor | None) -> Tensor:
    """Add in the outer dtype: rounding a bias to bfloat16 would be an error that no product accounts for."""
    if bias is not None:
        out += bias if out.dim() == 2 else bias[:, None, None]
    return out


def _both_passes(kernel: DenseConv2d, x: Tensor, grad: Tensor) -> Callable[[], None]:
    def run() -> None:
        kernel.forward(x)
        kernel.backward(x, grad)

    return run


def _geometry(problem: Problem) -> Problem:
    """The problem without what a dense layer does not see, so that it is raced once."""
    return replace(problem, sparsity=0.0, pattern="uniform", bias=False, threads=1)


@cache
def faster_layout(problem: Problem, dtype: torch.dtype, threads: int) -> str:
    """The layout that does forward and backward of the problem sooner; "nchw" where it is tiny.

    `threads` is part of the key only: it is torch's own setting that is raced.
    """
    outer = torch.float32 if dtype == torch.bfloat16 else dtype
    weight = torch.ones(problem.weight_shape, dtype=outer)
    if 2.0 * problem.positions * weight.numel() < _TINY_FLOP:
        return "nchw"
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(problem.input_shape, generator=generator, dtype=outer)
    grad = torch.randn(problem.output_shape, generator=generator, dtype=outer)
    runs = {}
    for layout, memory_format in _FORMATS.items():
        kernel = DenseConv2d(problem, SparseWeight.from_dense(weight), dtype, layout)
        runs[layout] = _both_passes(
            kernel, x.contiguous(memory_format=memory_format), grad.contiguous(memory_format=memory_format)
        )
    with torch.no_grad():
        return fastest(runs)
