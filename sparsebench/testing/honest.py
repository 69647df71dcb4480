"""The plainest right backend: dense products, every rule of the contract kept, nothing fast.

It is what tests make wrong in one way at a time, and a second opinion for who writes a kernel. Importing it does not
import torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sparsebench.plugin import Problem

if TYPE_CHECKING:
    from torch import Tensor

    from sparsebench.weight import SparseWeight


class HonestKernel:
    """Keeps the dense weight and multiplies with it."""

    def __init__(self, problem: Problem, weight: SparseWeight) -> None:
        self.problem, self.weight = problem, weight
        self.places = weight.flat_ids()
        self.dense = weight.to_dense()

    def set_values(self, values: Tensor) -> None:
        """Take new values [nnz]."""
        self.dense = self.weight.with_values(values).to_dense()

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """The dense layer's output."""
        if self.problem.op == "linear":
            product = x @ self.dense.T
            return product if bias is None else product + bias
        from torch.nn.functional import conv2d

        p = self.problem
        return conv2d(x, self.dense, bias, p.stride, p.padding, p.dilation, p.groups)

    def backward(
        self, x: Tensor, grad_output: Tensor, needs: tuple[bool, bool] = (True, True), saved: Any = None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Both gradients of the dense layer, the second one gathered."""
        grad_input, grad_weight = self._gradients(x, grad_output, needs)
        return grad_input, None if grad_weight is None else grad_weight.reshape(-1)[self.places]

    def _gradients(
        self, x: Tensor, grad_output: Tensor, needs: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        p = self.problem
        if p.op == "linear":
            return grad_output @ self.dense if needs[0] else None, grad_output.T @ x if needs[1] else None
        import torch

        grads = torch.ops.aten.convolution_backward(
            grad_output, x, self.dense, None, p.stride, p.padding, p.dilation, False, (0, 0), p.groups, (*needs, False)
        )
        return grads[0], grads[1]


class HonestBackend:
    """Binds `HonestKernel`, or the kernel class given."""

    def __init__(self, kernel: Callable[[Problem, SparseWeight], Any] = HonestKernel) -> None:
        self.kernel = kernel

    def unsupported(self, problem: Problem) -> str | None:
        """Nothing is."""
        return None

    def bind(self, problem: Problem, weight: SparseWeight) -> Any:
        """A kernel over the dense weight."""
        return self.kernel(problem, weight)
