"""Proves a bound kernel right, or says in one sentence what it does wrong, before and after it is timed.

Looked at are forward, both gradients, a second set of values, and what a kernel must not do: change its inputs
or earlier results, return junk, leave memory unwritten. An exception that the kernel raises is the caller's.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.utils import deterministic

from sparsebench.oracle import Oracle, Reference, Trial, weight_digest
from sparsebench.plugin import Kernel
from sparsebench.state import GlobalState
from sparsebench.tolerance import EPS, Finding, compare, compare_models
from sparsebench.weight import SparseWeight

__all__ = [
    "Finding",
    "as_fed",
    "compare",
    "compare_models",
    "poisoned_memory",
    "recheck",
    "verify_kernel",
    "verify_once",
]
BOTH = (True, True)


def verify_kernel(kernel: Kernel, oracle: Oracle, precision: str = "float32", brief: bool = False) -> Finding:
    """Forward, both gradients, a second set of values, and everything a kernel must not do.

    `kernel` is bound to `oracle.weight` and is so again if the finding is ok, which then is the worst of all
    comparisons. Uninitialised memory is filled with NaN meanwhile. `brief`: forward and both gradients alone, for a
    kernel that has passed all of it in another process.
    """
    with torch.no_grad(), poisoned_memory():
        return _worst((_glance if brief else _examine)(_Bench(kernel, oracle, precision), oracle))


def verify_once(kernel: Kernel, oracle: Oracle, precision: str = "float32") -> Finding:
    """Forward and both gradients of the oracle's very tensors, whatever their strides."""
    with torch.no_grad(), poisoned_memory():
        bench = _Bench(kernel, oracle, precision, oracle.x, oracle.grad_output)
        bench.trial = oracle.trial()
        return _worst(chain(bench.forward(), bench.backward()))


def recheck(
    kernel: Kernel,
    oracle: Oracle,
    precision: str = "float32",
    x: Tensor | None = None,
    grad_output: Tensor | None = None,
    bias: Tensor | None = None,
) -> Finding:
    """Forward and both gradients once more, with other content in the buffers that were timed.

    `x`, `grad_output` and `bias` are those buffers, the oracle's own by default; their content is put back.
    """
    given = zip((x, grad_output, bias), (oracle.x, oracle.grad_output, oracle.bias), strict=True)
    buffers = [theirs if mine is None else mine for mine, theirs in given]
    kept = [None if buffer is None else buffer.clone() for buffer in buffers]
    try:
        with torch.no_grad():
            bench = _Bench(kernel, oracle, precision, *buffers)
            bench.load(oracle.trial(scale_x=-2.0, scale_grad=0.5))
            return _worst(chain(bench.forward(), bench.backward()))
    finally:
        for buffer, content in zip(buffers, kept, strict=True):
            if buffer is not None and content is not None:
                _overwrite(buffer, content)


@contextmanager
def poisoned_memory() -> Iterator[None]:
    """torch's uninitialised memory is filled with NaN.

    That has an effect in deterministic mode alone. Mode "warn" keeps operations without a deterministic version
    from raising; their warnings are not for anybody. (`use_deterministic_algorithms` imports the compiler: 1.5 s.)
    """
    mode = torch.get_deterministic_debug_mode()
    settings: Any = deterministic
    fill = settings.fill_uninitialized_memory
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.set_deterministic_debug_mode("warn")
        settings.fill_uninitialized_memory = True
        try:
            yield
        finally:
            settings.fill_uninitialized_memory = fill
            torch.set_deterministic_debug_mode(mode)


def as_fed(kernel: Kernel, x: Tensor) -> Tensor:
    """x in the memory format that the kernel asks for: itself, or a channels-last copy."""
    if getattr(kernel, "memory_format", None) == "channels-last" and x.dim() == 4:
        return x.contiguous(memory_format=torch.channels_last)
    return x


class _Bench:
    """A kernel with the buffers it is fed from; every call is compared, and its inputs looked at afterwards."""

    def __init__(
        self,
        kernel: Kernel,
        oracle: Oracle,
        precision: str,
        x: Tensor | None = None,
        grad_output: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> None:
        self.kernel, self.precision, self.oracle = kernel, precision, oracle
        self.x = as_fed(kernel, oracle.x.clone()) if x is None else x
        self.grad_output = as_fed(kernel, oracle.grad_output.clone()) if grad_output is None else grad_output
        self.bias = oracle.bias.clone() if bias is None and oracle.bias is not None else bias
        self.values = oracle.weight.values.clone()
        self.kept: list[tuple[Tensor, Tensor]] = []
        self.state = GlobalState.capture()

    def load(self, trial: Trial) -> None:
        """Put the trial's content into the buffers."""
        self.trial = trial
        _overwrite(self.x, trial.x)
        _overwrite(self.grad_output, trial.grad_output)
        if self.bias is not None and trial.bias is not None:
            _overwrite(self.bias, trial.bias)

    def forward(self, call: str = "forward") -> Iterator[Finding]:
        yield from self._output(call, self.kernel.forward(self.x, self.bias))

    def backward(self, needs: tuple[bool, bool] = BOTH, **saved: Any) -> Iterator[Finding]:
        """What is not asked for may be anything."""
        got = self.kernel.backward(self.x, self.grad_output, needs, **saved)
        yield from self._untouched("backward")
        if not isinstance(got, tuple | list) or len(got) != 2:
            yield self._fail("backward", f"backward returned {type(got).__name__} instead of two results")
            return
        if needs[0]:
            yield self._compare("grad_input", got[0], self.trial.grad_input)
        if needs[1]:
            grad_values = _in_csr_order(self.kernel, got[1], self.oracle.weight)
            yield self._compare("grad_values", grad_values, self.trial.grad_values)

    def saving(self, other: Tensor) -> Iterator[Finding]:
        """`forward_saving`, another call of it in between, then backward with what the first one saved."""
        got = self.kernel.forward_saving(self.x, self.bias)  # type: ignore[attr-defined]
        if not isinstance(got, tuple | list) or len(got) != 2:
            reason = f"forward_saving returned {type(got).__name__} instead of output and saved"
            yield self._fail("forward_saving", reason)
            return
        yield from self._output("forward_saving", got[0])
        self.kernel.forward_saving(other, self.bias)  # type: ignore[attr-defined]
        yield from self.backward(saved=got[1])

    def set_values(self, values: Tensor) -> Iterator[Finding]:
        _overwrite(self.values, values)
        self.kernel.set_values(self.values)
        if not _same_bits(self.values, values):
            yield self._fail("set_values", "set_values changed its input")

    def earlier_results(self) -> Iterator[Finding]:
        """Results of earlier calls must not change under later ones."""
        if not all(_same_bits(now, then) for now, then in self.kept):
            yield self._fail("earlier results", "a later call changed the result of an earlier one")

    def own_weight(self, call: str) -> Iterator[Finding]:
        """Nobody may write into the weight that the kernel is bound to."""
        if weight_digest(self.oracle.weight) != self.oracle.weight_digest:
            yield self._fail(call, f"{call} changed the weight that the kernel is bound to")

    def _output(self, call: str, got: object) -> Iterator[Finding]:
        yield from self._untouched(call)
        yield self._compare(call, got, self.trial.forward)

    def _compare(self, what: str, got: object, reference: Reference) -> Finding:
        finding = compare(what, got, *reference, self.precision, self.x.dtype)
        if finding.ok and len(self.kept) < 3 and isinstance(got, Tensor):
            self.kept.append((got, got.clone()))
        return finding

    def _untouched(self, call: str) -> Iterator[Finding]:
        inputs = {"x": self.x, "grad_output": self.grad_output, "bias": self.bias}
        for name, now in inputs.items():
            if now is not None and not _same_bits(now, getattr(self.trial, name)):
                yield self._fail(call, f"{call} changed its input {name}")
        if changes := self.state.changes():
            self.state.restore()
            yield self._fail(call, f"{call} did what it must not: {changes}")

    def _fail(self, what: str, reason: str) -> Finding:
        return Finding(False, what, reason, math.inf, 8 * EPS[self.precision])


def _examine(bench: _Bench, oracle: Oracle) -> Iterator[Finding]:
    """All that `verify_kernel` looks at, in order; the first finding that is not ok ends it."""
    yield from bench.own_weight("bind")
    first, changed, other = oracle.trial(), oracle.trial(scale_x=-0.5, scale_grad=4.0), oracle.trial(other_values=True)
    bench.load(first)
    yield from bench.forward()
    yield from bench.backward()
    yield from bench.own_weight("forward or backward")
    yield from bench.backward((True, False))
    yield from bench.backward((False, True))
    if hasattr(bench.kernel, "forward_saving"):
        yield from bench.saving(as_fed(bench.kernel, changed.x))
    bench.load(changed)
    yield from bench.forward("forward on other x in the same memory")
    yield from bench.backward()
    yield from bench.earlier_results()
    bench.load(other)
    yield from bench.set_values(other.values)
    yield from bench.forward("forward after set_values")
    yield from bench.backward()
    bench.load(first)
    yield from bench.set_values(first.values)
    yield from bench.forward("forward after set_values")
    yield from bench.earlier_results()
    yield from bench.own_weight("set_values")


def _glance(bench: _Bench, oracle: Oracle) -> Iterator[Finding]:
    """What `verify_kernel` looks at in brief."""
    bench.load(oracle.trial())
    yield from bench.forward()
    yield from bench.backward()
    yield from bench.own_weight("bind, forward or backward")


def _worst(findings: Iterator[Finding]) -> Finding:
    """The first finding that is not ok, else the one with the largest error."""
    worst: Finding | None = None
    for finding in findings:
        if not finding.ok:
            return finding
        if worst is None or finding.max_rel_err > worst.max_rel_err:
            worst = finding
    assert worst is not None, "nothing was compared"
    return worst


def _in_csr_order(kernel: Kernel, gradient: object, weight: SparseWeight) -> object:
    """The gradient of the values, gathered where the kernel gives that of the dense weight."""
    if getattr(kernel, "dense_grad", False) and isinstance(gradient, Tensor) and gradient.shape == weight.shape:
        return weight.gather(gradient)
    return gradient


def _overwrite(buffer: Tensor, content: Tensor) -> None:
    """New content that the tensor's version does not show, as optimizers write it: a kernel may not trust versions."""
    buffer.data.copy_(content)


def _same_bits(one: Tensor, other: Tensor) -> bool:
    """Equality that sees a NaN as itself and -0 as another number than 0."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    as_bits = {8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.int8}[one.element_size()]
    return torch.equal(one.view(as_bits), other.view(as_bits))
