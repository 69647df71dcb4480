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
from sparsebench.place import NEEDS, Place
from sparsebench.tolerance import judged_precision
from sparsebench.verify import Finding

KEPT = 1 << 22  # bytes of results: of larger ones a copy would count in a row's memory, and a lap takes longer anyway
PLACES = 4  # in memory; what they differ by counts a quarter in the spread of block values
SPREAD_BYTES = 1 << 22  # of inputs, results and the sparse weight: the most for which there are several
SPREAD_NS, FIRST_NS = 20e6, 1e9  # of binding, and of binding for the first time


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
    oracle = load_oracle(order.oracle)
    bind = torch.no_grad()(lambda: backend.bind(problem_of(order.parameters), oracle.weight))
    return KernelJob(bind, oracle, judged_precision(order.precision, oracle.problem.dtype))


def _is_same(got: object, proven: torch.Tensor) -> bool:
    if not isinstance(got, torch.Tensor) or (got.dtype, got.layout) != (proven.dtype, proven.layout):
        return False
    return torch.equal(got, proven)


class KernelJob:
    """One bound kernel and the oracle of its problem."""

    def __init__(self, bind: Callable[[], Any], oracle: Oracle, precision: str) -> None:
        start = time.perf_counter_ns()
        self.bind, self.oracle, self.precision = bind, oracle, precision
        self.kernels = [bind()]  # the first is verified, and its like may stand in further places
        self.bind_ns = time.perf_counter_ns() - start
        self.counted = Counted(self.kernels[0])
        self.counted.ns = self.bind_ns
        self.note = str(getattr(self.kernels[0], "note", ""))
        self.places: list[Place] = []
        self.turn, self.which = 0, "forward"
        self.proven: list[Any] = []  # copies of the last results that were found right
        self.finding: Finding

    def verify(self, brief: bool = False) -> Finding:
        """Forward, both gradients and, unless `brief`, a second set of values, whatever pass is timed later."""
        return verify.verify_kernel(self.counted, self.oracle, self.precision, brief)

    def prepare(self, parameters: Mapping[str, Any]) -> None:
        """Inputs in memory of their own; one place, until it is spread."""
        self.note = str(getattr(self.kernels[0], "note", ""))
        self.which, self.proven, self.turn = str(parameters["pass"]), [], 0
        self.places = [Place(self.kernels[0], self.oracle, self.which)]

    @property
    def run(self) -> Callable[[], object]:
        """The pass, in the place whose turn it is."""
        return self.places[self.turn % len(self.places)].run

    def spread(self) -> bool:
        """Bind the kernel in further places, for samples to use in turn; not if that takes long or much memory.

        Whether it was tried, and so took memory that is not the variant's. Physical memory is drawn by lot, and where
        data nearly fill L2 it decides how many lines are in each other's way: two processes differed by 5 % for as
        long as they lived. A quarter of L2, or far more than L2, does not care (tests/harness/measure_placement.py).
        """
        place, weight = self.places[0], self.oracle.weight
        size = 2 * (place.x.nbytes + place.grad_output.nbytes) + 2 * (weight.values.nbytes + weight.indices.nbytes)
        if size > SPREAD_BYTES or self.bind_ns > FIRST_NS:
            return False
        start = time.perf_counter_ns()
        self.kernels.append(self.bind())  # the first bind may have done what is done once in a process
        if time.perf_counter_ns() - start > SPREAD_NS:
            self.kernels.pop()
        else:
            self.kernels += [self.bind() for _ in range(PLACES - 2)]
        self.counted.ns += time.perf_counter_ns() - start
        self.places += [Place(kernel, self.oracle, self.which) for kernel in self.kernels[1:]]
        for place in self.places[1:]:
            place.run()  # the first call builds what is needed
        return True

    def inspect(self) -> Finding:
        """The last repetition's results against the oracle, element by element; the next sample has another place.

        What was found right is right as long as it is the same to the last bit, which is seen ten times as fast.
        """
        last = self._last()
        self.turn += 1
        if self.proven and all(map(_is_same, (got for _, got, _ in last), self.proven)):
            return self.finding
        findings = [verify.compare(what, got, *reference, self.precision) for what, got, reference in last]
        self.finding = next((f for f in findings if not f.ok), findings[0])
        small = self.finding.ok and sum(got.nbytes for _, got, _ in last) <= KEPT
        self.proven = [got.clone() for _, got, _ in last] if small else []
        return self.finding

    def _last(self) -> list[tuple[str, Any, Reference]]:
        """What the pass promises, whether it came or not: (name, result, reference)."""
        place = self.places[self.turn % len(self.places)]
        oracle, gradients = self.oracle, place.results.get("gradients")
        if not isinstance(gradients, tuple | list) or len(gradients) != 2:
            gradients = (None, None)
        grad_input, grad_values = gradients
        if isinstance(grad_values, torch.Tensor) and getattr(place.kernel, "dense_grad", False):
            grad_values = oracle.weight.gather(grad_values)
        promised = NEEDS.get(self.which, (False, False))
        found = (
            (self.which in ("forward", "both"), "forward", place.results.get("forward"), oracle.forward),
            (promised[0], "grad_input", grad_input, oracle.grad_input),
            (promised[1], "grad_values", grad_values, oracle.grad_values),
        )
        return [each for expected, *each in found if expected]  # type: ignore[misc]

    def recheck(self) -> Finding:
        """Once more, with other content in the memory that was timed last; of several places one is left."""
        place = self.places[(self.turn - 1) % len(self.places)]
        counted = Counted(place.kernel)
        try:
            return verify.recheck(counted, self.oracle, self.precision, place.x, place.grad_output, place.bias)
        finally:
            self.counted.ns += counted.ns
            del self.kernels[1:], self.places[1:]  # or they would count in the memory of the group's next pass

    @property
    def checked_ns(self) -> int:
        """Nanoseconds so far in which the kernel was bound, and computed to be verified."""
        return self.counted.ns

    def scores(self) -> tuple[dict[str, float], dict[str, float]]:
        """A kernel has neither parts nor metrics."""
        return {}, {}
