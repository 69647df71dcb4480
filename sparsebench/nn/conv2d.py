"""SparseConv2d: a convolution with a sparse weight, in place of `nn.Conv2d`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from torch import Tensor, nn

from sparsebench.errors import ProblemError, UsageError
from sparsebench.nn.convert import bare, copy_dense, dense_weight
from sparsebench.nn.layer import SparseLayer
from sparsebench.nn.problem import zero_padding

if TYPE_CHECKING:
    from sparsebench.nn.backends import BackendHandle
    from sparsebench.plugin import Backend


class SparseConv2d(SparseLayer):
    """A convolution of [N, C, H, W] or [C, H, W] with only the weights inside its pattern; padded with zeros only."""

    def __init__(self, module: nn.Conv2d, backend: str | Backend | BackendHandle, mask: Tensor | None = None) -> None:
        zero_padding(module)
        super().__init__(dense_weight(module, mask), module.bias, backend)
        self.in_channels, self.out_channels, self.groups = module.in_channels, module.out_channels, module.groups
        self.kernel_size, self.stride, self.dilation = module.kernel_size, module.stride, module.dilation
        self.padding: str | tuple[int, ...] = module.padding
        self.padding_mode = module.padding_mode

    @classmethod
    def from_dense(cls, module: nn.Module, backend: str | Backend | BackendHandle, mask: Tensor | None = None) -> Self:
        """A copy of an `nn.Conv2d` with the pattern `mask` (bool, [out, in/groups, kh, kw]; default: the non-zeros).

        Raises `UsageError` for another kind of layer or an unknown backend, `UnsupportedError` off the cpu or for
        padding other than equal zeros on both sides, `ProblemError` for a mask of another shape or a dtype that no
        kernel has. What the backend cannot do is said at the first forward.
        """
        if not isinstance(module, nn.Conv2d):
            raise UsageError(f"SparseConv2d.from_dense takes an nn.Conv2d, not {type(module).__name__}")
        return copy_dense(module, cls(module, backend, mask))

    def to_dense(self) -> nn.Conv2d:
        """A new `nn.Conv2d` with zeros outside the pattern."""
        names = (
            "in_channels",
            "out_channels",
            "kernel_size",
            "stride",
            "padding",
            "dilation",
            "groups",
            "padding_mode",
        )
        options: dict[str, Any] = {name: getattr(self, name) for name in names}
        return copy_dense(self, bare(nn.Conv2d, **options, bias=self.bias is not None, dtype=self.values.dtype))

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, out_channels, H', W'], or the same without N."""
        if input.dim() not in (3, 4) or input.shape[-3] != self.in_channels:
            raise ProblemError(
                f"SparseConv2d: input is {tuple(input.shape)}; it must be [N, {self.in_channels}, H, W] or without N"
            )
        return self.call(input) if input.dim() == 4 else self.call(input.unsqueeze(0)).squeeze(0)

    def extra_repr(self) -> str:
        """Shapes, sparsity and backend."""
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        text += (
            f", padding={self.padding!r}, dilation={self.dilation}, groups={self.groups}, bias={self.bias is not None}"
        )
        return f"{text}, sparsity={self.sparsity:.4g}, nnz={self.nnz}, backend={self.backend}"
