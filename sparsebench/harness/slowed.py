"""A backend that is another one, slower by a known share: what a comparison must find."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from sparsebench.discovery import Source
from sparsebench.plugin import Kernel, Problem
from sparsebench.registry import load_object
from sparsebench.weight import SparseWeight

T = TypeVar("T")


class Slowed:
    """Every call of `inner`'s kernels takes `percent` % longer than it took, by waiting busily after it.

    `inner` is what the plugin of one of our backends says of where to load it from, as in "package.module:Backend".
    """

    def __init__(self, inner: str, percent: float = 6.0) -> None:
        self.inner, self.share = load_object(inner, Source(inner))(), float(percent) / 100

    def unsupported(self, problem: Problem) -> str | None:
        """What the inner one says."""
        reason: str | None = self.inner.unsupported(problem)
        return reason

    def bind(self, problem: Problem, weight: SparseWeight) -> Kernel:
        """The inner kernel, held back."""
        return _SlowedKernel(self.inner.bind(problem, weight), self.share)


class _SlowedKernel:
    def __init__(self, inner: Any, share: float) -> None:
        self.inner, self.share = inner, share
        if hasattr(inner, "forward_saving"):  # or backward would pack what the other side need not
            self.forward_saving = self._forward_saving

    def __getattr__(self, name: str) -> Any:
        """What else the inner one is: the layout that it wants to be fed, its note."""
        return getattr(self.inner, name)

    def forward(self, x: Any, bias: Any = None) -> Any:
        return self._longer(lambda: self.inner.forward(x, bias))

    def backward(self, x: Any, grad_output: Any, needs: tuple[bool, bool] = (True, True), saved: Any = None) -> Any:
        given = () if saved is None else (saved,)
        return self._longer(lambda: self.inner.backward(x, grad_output, needs, *given))

    def _forward_saving(self, x: Any, bias: Any = None) -> Any:
        return self._longer(lambda: self.inner.forward_saving(x, bias))

    def _longer(self, call: Callable[[], T]) -> T:
        began = time.perf_counter_ns()
        made = call()
        until = began + (time.perf_counter_ns() - began) * (1 + self.share)
        while time.perf_counter_ns() < until:
            pass
        return made
