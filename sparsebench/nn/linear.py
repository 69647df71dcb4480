"""SparseLinear: y = x Wᵀ + b with a sparse W, in place of `nn.Linear`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from torch import Tensor, nn

from sparsebench.errors import ProblemError, UsageError
from sparsebench.nn.convert import bare, copy_dense, dense_weight
from sparsebench.nn.layer import SparseLayer
from sparsebench.weight import SparseWeight

if TYPE_CHECKING:
    from sparsebench.nn.backends import BackendHandle
    from sparsebench.plugin import Backend


class SparseLinear(SparseLayer):
    """A linear layer [..., in_features] -> [..., out_features] that keeps only the weights inside its pattern."""

    def __init__(self, weight: SparseWeight, bias: Tensor | None, backend: str | Backend | BackendHandle) -> None:
        super().__init__(weight, bias, backend)
        self.out_features, self.in_features = weight.shape

    @classmethod
    def from_dense(cls, module: nn.Module, backend: str | Backend | BackendHandle, mask: Tensor | None = None) -> Self:
        """A copy of an `nn.Linear` with the pattern `mask` (bool, [out, in]; default: the non-zeros).

        Raises `UsageError` for another kind of layer or an unknown backend, `UnsupportedError` off the cpu,
        `ProblemError` for a mask of another shape or a dtype that no kernel has. What the backend cannot do is said
        at the first forward.
        """
        if not isinstance(module, nn.Linear):
            raise UsageError(f"SparseLinear.from_dense takes an nn.Linear, not {type(module).__name__}")
        layer = cls(dense_weight(module, mask), module.bias, backend)
        return copy_dense(module, layer)

    def to_dense(self) -> nn.Linear:
        """A new `nn.Linear` with zeros outside the pattern."""
        made = bare(nn.Linear, self.in_features, self.out_features, bias=self.bias is not None, dtype=self.values.dtype)
        return copy_dense(self, made)

    def forward(self, input: Tensor) -> Tensor:
        """[..., in_features] -> [..., out_features]."""
        if not input.dim() or input.shape[-1] != self.in_features:
            raise ProblemError(
                f"SparseLinear: input is {tuple(input.shape)}; it must end in {self.in_features} features"
            )
        if input.dim() == 2:
            return self.call(input)
        leading = input.shape[:-1]
        return self.call(input.reshape(leading.numel(), self.in_features)).reshape(*leading, self.out_features)

    def extra_repr(self) -> str:
        """Shapes, sparsity and backend."""
        shapes = f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
        return f"{shapes}, sparsity={self.sparsity:.4g}, nnz={self.nnz}, backend={self.backend}"
