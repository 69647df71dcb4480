"""What all sparse layers share: values and pattern as state, and a kernel that is bound when it is first needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sparsebench.errors import ProblemError, UnsupportedError, UsageError
from sparsebench.nn.autograd import SparseProduct
from sparsebench.nn.backends import BackendHandle
from sparsebench.nn.binding import Binding
from sparsebench.nn.optimizer import check_slots, convert_slots
from sparsebench.nn.pattern import reload_pattern, remapping, resized
from sparsebench.nn.problem import problem_of
from sparsebench.weight import SparseWeight, from_csr

if TYPE_CHECKING:
    from sparsebench.plugin import Backend


class SparseLayer(nn.Module):
    """Base of `SparseLinear` and `SparseConv2d`.

    State: the parameters `values` [nnz] and `bias` [out] (or None), the buffers `indptr` [out + 1] and `indices` [nnz]
    (int32), all in the CSR order of `SparseWeight`. The bound kernel is never state.

    The kernel gets the values at every forward in training mode or with gradients enabled. In eval mode without
    gradients it keeps what it has until `train()`, `eval()`, `load_state_dict()`, `refresh()`, a backward pass, or a
    change that torch's tensor version shows; after a change through `.data` or by a fused optimizer alone, call
    `refresh()`.
    """

    values: nn.Parameter
    bias: nn.Parameter | None
    indptr: Tensor
    indices: Tensor

    def __init__(self, weight: SparseWeight, bias: Tensor | None, backend: str | Backend | BackendHandle) -> None:
        super().__init__()
        self.weight_shape = weight.shape
        self.values = nn.Parameter(weight.values.clone())  # a SparseWeight never changes
        self.register_parameter("bias", None if bias is None else nn.Parameter(bias.detach().clone()))
        self.register_buffer("indptr", weight.indptr)
        self.register_buffer("indices", weight.indices)
        self._backend = BackendHandle(backend)
        self._binding: Binding | None = None
        self._dense_format = torch.contiguous_format  # of the weight when it becomes dense again

    @property
    def backend(self) -> BackendHandle:
        """The backend whose kernel runs; `backend.name` is what it is called."""
        return self._backend

    @property
    def nnz(self) -> int:
        """How many weights the pattern keeps."""
        return self.values.numel()

    @property
    def sparsity(self) -> float:
        """The share of weights outside the pattern."""
        return 1 - self.nnz / max(1, torch.Size(self.weight_shape).numel())

    @property
    def weight(self) -> Tensor:
        """A new dense tensor of the weight's shape, a function of `values` in autograd; writing to it has no effect."""
        flat = self.values.new_zeros(torch.Size(self.weight_shape).numel())
        return flat.index_put((self.snapshot().flat_ids(),), self.values).reshape(self.weight_shape)

    def snapshot(self) -> SparseWeight:
        """The pattern with the current values, which are shared, not copied."""
        return SparseWeight(self.weight_shape, self.indptr, self.indices, self.values.detach())

    def mask(self) -> Tensor:
        """A new bool tensor of the weight's shape, True inside the pattern."""
        return self.snapshot().mask()

    def refresh(self) -> None:
        """Have the next forward hand the values to the kernel; for eval mode, after `.data` or a fused step."""
        if self._binding is not None:
            self._binding.expire()

    def train(self, mode: bool = True) -> SparseLayer:
        """As `nn.Module.train`; and what changed the values before is noticed after."""
        self.refresh()
        return super().train(mode)

    def set_pattern(
        self,
        mask: Tensor | None = None,
        *,
        indptr: Tensor | None = None,
        indices: Tensor | None = None,
        optimizer: torch.optim.Optimizer | None = None,
    ) -> None:
        """Give the layer another pattern: a bool `mask` of the weight's shape, or CSR parts.

        `values` stays the same Parameter. Weights in both patterns keep their value, gradient and optimizer slots;
        new ones start at 0. Raises `ProblemError` for a pattern that cannot be, `UsageError` for slots that cannot be
        remapped; then nothing has changed. A backward pass through an earlier forward raises.
        """
        if (mask is None) == (indptr is None or indices is None):
            raise UsageError("set_pattern: give either a mask, or indptr and indices")
        old = self.snapshot()
        if mask is not None:
            new = SparseWeight.from_dense(old.values.new_zeros(()).expand(self.weight_shape), mask)
        else:
            assert indptr is not None
            assert indices is not None
            new = from_csr(self.weight_shape, indptr, indices, old.values.new_zeros(indices.shape))
        remap = remapping(old, new)
        if optimizer is not None:
            check_slots(optimizer, self.values)
        self._replace_pattern(new, remap, optimizer)

    def _replace_pattern(
        self, new: SparseWeight, remap: Callable[[Tensor], Tensor], optimizer: torch.optim.Optimizer | None
    ) -> None:
        if optimizer is not None:
            convert_slots(optimizer, self.values, remap)
        grad = None if self.values.grad is None else remap(self.values.grad)
        resized(self.values, remap(self.values.detach()))
        self.values.grad = grad
        self.indptr, self.indices = new.indptr, new.indices
        self._binding = None

    def call(self, x: Tensor) -> Tensor:
        """`product`, or under torch.compile the same outside the graph."""
        if torch.compiler.is_compiling():
            from sparsebench.nn.compile import product_outside_graph

            return product_outside_graph(self, x)
        return self.product(x)

    def product(self, x: Tensor) -> Tensor:
        """The kernel's output for a batched x, [batch, in] or [N, C, H, W]."""
        self._check_tensors(x)
        binding = self._bound(x)
        if binding.channels_last and x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        if torch.is_grad_enabled():
            binding.expire()
            return SparseProduct.apply(x, self.values, self.bias, binding)
        return binding.forward(x, self.values, self.bias, saving=False, fresh=self.training)[0]

    def _check_tensors(self, x: Tensor) -> None:
        name = type(self).__name__
        for what, tensor in (("input", x), ("values", self.values)):
            if tensor.device.type != "cpu":
                raise UnsupportedError(
                    f"{name}: {what} on {tensor.device}; sparse kernels run on the cpu: move it there"
                )
        if x.dtype != self.values.dtype:
            raise ProblemError(
                f"{name}: input is {x.dtype}, values are {self.values.dtype}; convert one of them (or leave autocast)"
            )

    def _bound(self, x: Tensor) -> Binding:
        binding = self._binding
        if binding is None or binding.problem.threads != torch.get_num_threads():
            problem = problem_of(self, x.shape)
            reason = self._backend.unsupported(problem)
            if reason is not None:
                raise UnsupportedError(
                    f"{self._backend.name} cannot do {problem.describe()}: {reason}; use another backend"
                )
            self._binding = binding = Binding(self._backend, problem, self.snapshot())
        return binding

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SparseLayer:
        self._binding = None
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # args: local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        if reload_pattern(self, state_dict, prefix, args[-1]):
            super()._load_from_state_dict(state_dict, prefix, *args)
        self._binding = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_binding": None}
