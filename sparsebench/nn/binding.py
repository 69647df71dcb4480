"""A kernel bound to one pattern, and the record of which values it holds; never part of a layer's state."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from sparsebench.errors import PluginError
from sparsebench.nn.backends import BackendHandle
from sparsebench.nn.problem import output_shape
from sparsebench.problem import Problem
from sparsebench.weight import SparseWeight


class Binding:
    """Runs one kernel: hands it new values when it must, one thread at a time, and checks the shapes that come back."""

    def __init__(self, handle: BackendHandle, problem: Problem, weight: SparseWeight) -> None:
        self.problem = problem
        self.name = handle.name
        self._pattern = weight
        self._lock = threading.Lock()
        self._expired = False
        self._taken: tuple[Tensor, int] | None = None
        with _kernel_mode():
            self._kernel = handle.backend.bind(problem, weight.with_values(weight.values))
        self._saves = callable(getattr(self._kernel, "forward_saving", None))
        self.channels_last = getattr(self._kernel, "memory_format", None) == "channels-last"
        self.dense_grad = bool(getattr(self._kernel, "dense_grad", False))

    def expire(self) -> None:
        """Say that the values may have changed."""
        self._expired = True

    def forward(
        self, x: Tensor, values: Tensor, bias: Tensor | None, *, saving: bool, fresh: bool
    ) -> tuple[Tensor, Any]:
        """(output, packing for backward or None). `fresh`: hand the values over even if they look unchanged."""
        shape = output_shape(self.problem, x.shape)
        if not x.numel():
            return x.new_zeros(shape), None
        x, bias = x.detach(), None if bias is None else bias.detach()
        packing = None
        with self._lock, _kernel_mode():
            if fresh or self._expired or not self._holds(values):
                self._take(values)
            if saving and self._saves:
                output, packing = self._kernel.forward_saving(x, bias)  # type: ignore[attr-defined]
            else:
                output = self._kernel.forward(x, bias)
        return self._checked("an output", output, shape), packing

    def backward(
        self, x: Tensor, values: Tensor, grad_output: Tensor, needs: tuple[bool, bool], packing: Any
    ) -> tuple[Tensor | None, Tensor | None]:
        """(grad_input, grad_values [nnz]), each None unless needed."""
        self.expire()  # an optimizer step usually comes next
        if not x.numel():
            return (torch.zeros_like(x) if needs[0] else None), (torch.zeros_like(values) if needs[1] else None)
        saved = {"saved": packing} if self._saves else {}
        with self._lock, _kernel_mode():
            if not self._holds(values):
                self._take(values)
            grad_input, grad_values = self._kernel.backward(x.detach(), grad_output.detach(), needs, **saved)
        if needs[1] and self.dense_grad:
            dense = self._checked("a weight gradient", grad_values, self._pattern.shape)
            grad_values = dense.reshape(-1)[self._flat_ids]
        return (
            self._checked("an input gradient", grad_input, x.shape) if needs[0] else None,
            self._checked("a gradient of the values", grad_values, values.shape) if needs[1] else None,
        )

    @cached_property
    def _flat_ids(self) -> Tensor:
        return self._pattern.flat_ids()

    def _holds(self, values: Tensor) -> bool:
        # The taken tensor is kept alive, so an equal address means the same memory.
        if self._taken is None:
            return False
        taken, version = self._taken
        return taken.data_ptr() == values.data_ptr() and taken.shape == values.shape and version == _version(values)

    def _take(self, values: Tensor) -> None:
        self._taken = None
        detached = values.detach()
        self._kernel.set_values(detached)
        self._taken, self._expired = (detached, _version(values)), False

    def _checked(self, what: str, result: Any, shape: tuple[int, ...]) -> Tensor:
        if isinstance(result, Tensor) and result.shape == shape:
            return result
        got = f"a tensor {tuple(result.shape)}" if isinstance(result, Tensor) else type(result).__name__
        raise PluginError(
            f"backend {self.name}: {got} as {what} of {self.problem.describe()}; it must be {tuple(shape)}"
        )


def _version(values: Tensor) -> int:
    return -1 if values.is_inference() else values._version


def _kernel_mode() -> contextlib.AbstractContextManager[Any]:
    """No gradients; and no inference mode, so that what a kernel keeps can be written to later."""
    if torch.is_inference_mode_enabled():
        return _normal_mode()
    # Entering no_grad twice costs microseconds; autograd functions are already in it.
    return torch.no_grad() if torch.is_grad_enabled() else contextlib.nullcontext()


@contextlib.contextmanager
def _normal_mode() -> Iterator[None]:
    with torch.inference_mode(False), torch.no_grad():
        yield
