"""A kernel in memory of its own: what it packed, what it is fed, and what it returned last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from sparsebench import verify
from sparsebench.oracle import Oracle

NEEDS = {"grad_input": (True, False), "grad_weight": (False, True), "backward": (True, True), "both": (True, True)}


class Place:
    """One pass of a bound kernel on inputs of its own, in the layout of torch's that the kernel asks to be fed."""

    def __init__(self, kernel: Any, oracle: Oracle, which: str) -> None:
        self.kernel, self.results = kernel, dict[str, Any]()
        self.x = verify.as_fed(kernel, oracle.x.clone())
        self.grad_output = verify.as_fed(kernel, oracle.grad_output.clone())
        self.bias = None if oracle.bias is None else oracle.bias.clone()
        self.run: Callable[[], object] = torch.no_grad()(self._pass(which))

    def _pass(self, which: str) -> Callable[[], None]:
        """Without a look at which pass it is, each time: small kernels take microseconds."""
        kernel, results, x, bias, grad_output = self.kernel, self.results, self.x, self.bias, self.grad_output
        if which == "forward":

            def forward() -> None:
                results["forward"] = kernel.forward(x, bias)

            return forward
        needs, saving = NEEDS[which], getattr(kernel, "forward_saving", None)
        if which != "both":

            def backward() -> None:
                results["gradients"] = kernel.backward(x, grad_output, needs)

            return backward

        def both() -> None:
            if saving is None:
                results["forward"] = kernel.forward(x, bias)
                results["gradients"] = kernel.backward(x, grad_output, needs)
            else:
                results["forward"], saved = saving(x, bias)
                results["gradients"] = kernel.backward(x, grad_output, needs, saved)

        return both
