"""The autograd function of sparse layers: the kernel gives grad_input and grad_values, the host grad_bias."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.autograd import Function

from sparsebench.errors import UnsupportedError
from sparsebench.nn.binding import Binding


class SparseProduct(Function):
    """output = layer(x; values, bias), for x [batch, in] or [N, C, H, W].

    `values` is always saved, even where no gradient needs it, so that a change in place between the passes raises.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, bias: Tensor | None, binding: Binding) -> Tensor:
        saving = any(ctx.needs_input_grad[:2])
        output, ctx.packing = binding.forward(x, values, bias, saving=saving, fresh=True)
        ctx.save_for_backward(x, values)
        ctx.binding = binding
        return output

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, values = ctx.saved_tensors
        packing, ctx.packing = ctx.packing, None  # its memory must not outlive the pass; a second one packs again
        needs_input, needs_values, needs_bias, _ = ctx.needs_input_grad
        grad_input = grad_values = grad_bias = None
        if needs_input or needs_values:
            needs = (needs_input, needs_values)
            grad_input, grad_values = SparseGradients.apply(grad_output, x, values, needs, ctx.binding, packing)
        if needs_bias:
            grad_bias = grad_output.sum([dim for dim in range(grad_output.dim()) if dim != 1])
        return grad_input, grad_values, grad_bias, None


class SparseGradients(Function):
    """(grad_input, grad_values) as a node of its own: differentiating it raises, `create_graph=True` alone does not."""

    @staticmethod
    def forward(
        ctx: Any,
        grad_output: Tensor,
        x: Tensor,
        values: Tensor,
        needs: tuple[bool, bool],
        binding: Binding,
        packing: Any,
    ) -> tuple[Tensor | None, Tensor | None]:
        ctx.where = binding.problem.describe()
        return binding.backward(x, values, grad_output, needs, packing)

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise UnsupportedError(
            f"{ctx.where}: sparse layers have no second derivative; densify the model for double backward"
        )
