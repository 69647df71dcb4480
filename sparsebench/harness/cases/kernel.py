"""Kernel cases: one pass of one bound kernel, compared with a float64 oracle before, during and after the timing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from sparsebench import verify
from sparsebench.harness.cases.base import Order, ask
from sparsebench.harness.cases.counted import Counted
from sparsebench.harness.cells import problem_of
from sparsebench.oracle import Oracle, Reference, load_oracle, make_oracle
from sparsebench.patterns import make_weight
from sparsebench.tolerance import judged_precision
from sparsebench.verify import Finding

KEPT = 1 << 22  # bytes of results: of larger ones a copy would count in a row's memory, and a lap takes longer anyway
NEEDS = {"grad_input": (True, False), "grad_weight": (False, True), "backward": (True, True), "both": (True, True)}


def unsupported(order: Order, backend: Any) -> str | None:
    """Ask the spec, then the backend."""
    problem, spec = problem_of(order.parameters), order.entries["backend"].spec
    if problem.pattern.startswith("file:"):
        make_weight(problem)  # raises what is wrong with the file, before work starts
    reason = spec.refuses(problem) or ask(backend, problem)
    if reason is not None and not isinstance(reason, str):
        raise TypeError(f"unsupported() returned {type(reason).__name__}; it must return a reason or None")
    return reason


def write_oracle(order: Order, path: Path) -> None:
    """The seeded weight and inputs, and the float64 results of both passes."""
    make_oracle(problem_of(order.parameters), int(order.parameters["seed"])).save(path)


def make(order: Order, backend: Any) -> KernelJob:
    """Bind the oracle's weight."""
    oracle, start = load_oracle(order.oracle), time.perf_counter_ns()
    with torch.no_grad():
        kernel = backend.bind(problem_of(order.parameters), oracle.weight)
    job = KernelJob(kernel, oracle, judged_precision(order.precision, oracle.problem.dtype))
    job.counted.ns = time.perf_counter_ns() - start
    return job


def _is_same(got: object, proven: torch.Tensor) -> bool:
    if not isinstance(got, torch.Tensor) or (got.dtype, got.layout) != (proven.dtype, proven.layout):
        return False
    return torch.equal(got, proven)


class KernelJob:
    """One bound kernel and the oracle of its problem."""

    def __init__(self, kernel: Any, oracle: Oracle, precision: str) -> None:
        self.kernel, self.oracle, self.precision = kernel, oracle, precision
        self.counted = Counted(kernel)
        self.note = str(getattr(kernel, "note", ""))
        self.x, self.grad_output, self.bias = oracle.x, oracle.grad_output, oracle.bias
        self.run: Callable[[], object] = lambda: None
        self.results: dict[str, Any] = {}
        self.which = "forward"
        self.proven: list[Any] = []  # copies of the last results that were found right
        self.finding: Finding

    def verify(self, brief: bool = False) -> Finding:
        """Forward, both gradients and, unless `brief`, a second set of values, whatever pass is timed later."""
        return verify.verify_kernel(self.counted, self.oracle, self.precision, brief)

    def prepare(self, parameters: Mapping[str, Any]) -> None:
        """Inputs in memory of their own, in the layout of torch's that the kernel asks to be fed."""
        self.note = str(getattr(self.kernel, "note", ""))
        self.x = verify.as_fed(self.kernel, self.oracle.x.clone())
        self.grad_output = verify.as_fed(self.kernel, self.oracle.grad_output.clone())
        self.bias = None if self.oracle.bias is None else self.oracle.bias.clone()
        self.run = torch.no_grad()(self._closure(str(parameters["pass"]), self.x, self.bias, self.grad_output))

    def _closure(self, which: str, x: Any, bias: Any, grad_output: Any) -> Callable[[], object]:
        kernel, results = self.kernel, self.results
        self.which, self.proven = which, []
        results.clear()
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

    def inspect(self) -> Finding:
        """The last repetition's results against the oracle, element by element.

        What was found right is right as long as it is the same to the last bit, which is seen ten times as fast.
        """
        last = self._last()
        if self.proven and all(map(_is_same, (got for _, got, _ in last), self.proven)):
            return self.finding
        findings = [verify.compare(what, got, *reference, self.precision) for what, got, reference in last]
        self.finding = next((f for f in findings if not f.ok), findings[0])
        small = self.finding.ok and sum(got.nbytes for _, got, _ in last) <= KEPT
        self.proven = [got.clone() for _, got, _ in last] if small else []
        return self.finding

    def _last(self) -> list[tuple[str, Any, Reference]]:
        """What the pass promises, whether it came or not: (name, result, reference)."""
        oracle, gradients = self.oracle, self.results.get("gradients")
        if not isinstance(gradients, tuple | list) or len(gradients) != 2:
            gradients = (None, None)
        grad_input, grad_values = gradients
        if isinstance(grad_values, torch.Tensor) and getattr(self.kernel, "dense_grad", False):
            grad_values = oracle.weight.gather(grad_values)
        promised = NEEDS.get(self.which, (False, False))
        found = (
            (self.which in ("forward", "both"), "forward", self.results.get("forward"), oracle.forward),
            (promised[0], "grad_input", grad_input, oracle.grad_input),
            (promised[1], "grad_values", grad_values, oracle.grad_values),
        )
        return [each for expected, *each in found if expected]  # type: ignore[misc]

    def recheck(self) -> Finding:
        """Once more, with other content in the same memory."""
        return verify.recheck(self.counted, self.oracle, self.precision, self.x, self.grad_output, self.bias)

    @property
    def checked_ns(self) -> int:
        """Nanoseconds so far in which the kernel was bound, and computed to be verified."""
        return self.counted.ns

    def scores(self) -> tuple[dict[str, float], dict[str, float]]:
        """A kernel has neither parts nor metrics."""
        return {}, {}
