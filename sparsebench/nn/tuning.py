"""`backend="auto"`: measures every backend on a layer's own weight and names the fastest that beats the dense layer.

What `sparsebench tune` has measured on this machine is taken as it is, as long as it still holds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sparsebench import host, plans, timing
from sparsebench.errors import UsageError
from sparsebench.nn.backends import BackendHandle, float32_backends
from sparsebench.nn.capture import Seen
from sparsebench.nn.conv2d import SparseConv2d
from sparsebench.nn.linear import SparseLinear
from sparsebench.problem import Problem

MARGIN = 0.03  # timings of equal kernels differ by this much
HOPELESS = 2.0  # a first look this much slower than dense ends a backend's turn
EPS = 2.0**-23

Best = tuple[BackendHandle | None, str, dict[str, float]]


class Tuner:
    """Remembers its answers by problem (sparsity to two digits), mode and layout.

    Over all installed backends, unless some are given: then nothing is taken from what was tuned before.
    """

    def __init__(self, backends: Iterable[BackendHandle] | None = None) -> None:
        self._asks = backends is None
        self._backends = list(float32_backends() if backends is None else backends)
        self._known: dict[tuple[Any, ...], Best] = {}

    def best(self, module: nn.Linear | nn.Conv2d, mask: Tensor | None, problem: Problem, seen: Seen) -> Best:
        """(the fastest backend or None, the reason in one sentence, median nanoseconds by name).

        Forward and backward are timed in training mode, forward alone in eval mode; conv2d's dense layer in both
        layouts.
        """
        rounded = dataclasses.replace(problem, sparsity=int(problem.sparsity * 100) / 100)
        key = (rounded, module.training, module.weight.requires_grad, seen.channels_last)
        if key not in self._known:
            usual = module.weight.requires_grad and not seen.channels_last  # that is what `tune` measures
            tuned = self._tuned(problem, "both" if module.training else "forward") if self._asks and usual else None
            self._known[key] = tuned or self._measure(module, mask, problem, seen)
        return self._known[key]

    def _tuned(self, problem: Problem, passes: str) -> Best | None:
        """What `sparsebench tune` found for a problem like this; None if it must be measured.

        That is so if a backend or its code is not what was raced then, or is not there.
        """
        found = plans.fastest(problem, passes)
        if found is None or found.torch != host.libraries().get("torch"):
            return None
        if not {handle.name for handle in self._backends} <= found.codes.keys() or not _unchanged(found.codes):
            return None
        dense, when = found.times_ns["dense"], f"as tuned {found.made[:10]}"
        if not found.backend:
            return None, f"no backend is faster than the dense layer, {when}", found.times_ns
        try:
            handle = BackendHandle(found.winner)
            if handle.unsupported(problem) is not None:  # which imports it, so that its code can be looked at
                return None
        except UsageError:
            return None
        if not plans.is_current(found.codes[found.backend]):
            return None
        ratio = dense / found.times_ns[found.backend]
        return handle, f"{handle.name} is {ratio:.2f} times as fast as the dense layer, {when}", found.times_ns

    def _measure(self, module: nn.Linear | nn.Conv2d, mask: Tensor | None, problem: Problem, seen: Seen) -> Best:
        contest = _Contest(module, mask, seen)
        refused: list[str] = []
        handles: dict[str, BackendHandle] = {}
        for handle in self._backends:
            reason = contest.enter(handle, problem)
            if reason is None:
                handles[handle.name] = handle
            else:
                refused.append(f"{handle.name} {reason}")
        if not handles:
            return None, "no backend can take it: " + ("; ".join(refused) or "none is installed"), {}
        times = timing.race(contest.runs)
        dense = min(time for name, time in times.items() if name not in handles)
        winner = min(handles, key=lambda name: times[name])
        ratio = dense / times[winner]
        if ratio <= 1 + MARGIN:
            return None, f"the fastest backend, {winner}, is {ratio:.2f} times as fast as the dense layer", times
        return handles[winner], f"{winner} is {ratio:.2f} times as fast as the dense layer", times


def _unchanged(codes: Mapping[str, plans.Code]) -> bool:
    """Whether no backend that was raced has other code now; of what is not imported nobody can tell."""
    known = [code for code in codes.values() if code.sha256]
    return all(plans.code_of(code.module).sha256 in ("", code.sha256) for code in known)


class _Contest:
    """The dense layer in its layouts and the backends that agree with it, ready to be timed on one input."""

    def __init__(self, module: nn.Linear | nn.Conv2d, mask: Tensor | None, seen: Seen) -> None:
        self.module, self.mask = module, mask
        self.training = module.training
        draw = torch.Generator().manual_seed(0)
        self.x = torch.randn(seen.shape, generator=draw, dtype=module.weight.dtype)
        if seen.channels_last:
            self.x = self.x.contiguous(memory_format=torch.channels_last)
        dense = _dense_copy(module, mask)
        with torch.no_grad():
            self.grad_output = torch.randn(dense(self.x).shape, generator=draw, dtype=self.x.dtype)
        self.reference = _passes(dense, self.x, self.grad_output, self.training)()
        self.bounds = _bounds(dense, self.x, self.grad_output, self.training)
        self.runs: dict[str, Callable[[], Any]] = {"dense": _passes(dense, self.x, self.grad_output, self.training)}
        if self.x.dim() == 4:
            last = torch.channels_last
            other = _dense_copy(module, mask).to(memory_format=last)  # type: ignore[call-overload]
            x, grad_output = (t.contiguous(memory_format=last) for t in (self.x, self.grad_output))
            self.runs["dense channels-last"] = _passes(other, x, grad_output, self.training)
        self.patience = HOPELESS * min(timing.warm(run) for run in self.runs.values())

    def enter(self, handle: BackendHandle, problem: Problem) -> str | None:
        """Why a backend is not timed, in a few words; None if it is."""
        try:
            reason = handle.unsupported(problem)
            if reason is not None:
                return f"cannot: {reason}"
            layer = _sparse_copy(self.module, handle, self.mask)
            run = _passes(layer, self.x, self.grad_output, self.training)
            for result, reference, bound in zip(self._results(layer, run), self.reference, self.bounds, strict=True):
                if not bool(((result - reference).abs() <= bound).all()):
                    return "is wrong: it differs from the dense layer"
            if layer._binding is not None and layer._binding.dense_grad:
                return "keeps a dense weight"
            if timing.warm(run, 0) > self.patience:
                return f"is over {HOPELESS:g} times slower than dense"
        except Exception as error:  # a plugin's failure is an answer, not the end of the tuning
            return f"failed: {type(error).__name__}: {error}"
        self.runs[handle.name] = run
        return None

    def _results(self, layer: SparseLinear | SparseConv2d, run: Callable[[], Any]) -> tuple[Tensor, ...]:
        output, *gradients = run()
        if not gradients:
            return (output,)
        # The dense gradient outside the pattern is not compared.
        grad_input, grad_values = gradients
        weight = layer.snapshot()
        grad_weight = torch.where(weight.mask(), weight.with_values(grad_values).to_dense(), self.reference[2])
        return output, grad_input, grad_weight


def _passes(layer: Any, x: Tensor, grad_output: Tensor, training: bool) -> Callable[[], tuple[Tensor, ...]]:
    """A call that gives (output,) in eval mode, (output, grad_input, gradient of weight or values) in training mode."""
    if not training:

        def forward() -> tuple[Tensor, ...]:
            with torch.no_grad():
                return (layer(x),)

        return forward
    x = x.detach().requires_grad_()
    wanted = [x, layer._parameters.get("values", layer._parameters.get("weight"))]

    def both() -> tuple[Tensor, ...]:
        with torch.enable_grad():
            output = layer(x)
        return (output.detach(), *torch.autograd.grad(output, wanted, grad_output))

    return both


def _bounds(dense: nn.Module, x: Tensor, grad_output: Tensor, training: bool) -> list[Tensor]:
    """Elementwise 16·eps·sqrt(K)·(|W|·|x|) and so on: 8 for the result and 8 for a reference of the same precision."""
    weight = next(p for name, p in dense.named_parameters() if name == "weight")
    with torch.no_grad():
        for parameter in dense.parameters():
            parameter.abs_()
    results = _passes(dense, x.abs(), grad_output.abs(), training)()
    longest = max(weight[0].numel(), weight.shape[0] * weight[0, 0].numel(), grad_output.numel() // weight.shape[0])
    return [16 * EPS * longest**0.5 * result for result in results]


def _sparse_copy(module: nn.Module, handle: BackendHandle, mask: Tensor | None) -> SparseLinear | SparseConv2d:
    kind = SparseConv2d if isinstance(module, nn.Conv2d) else SparseLinear
    layer = kind.from_dense(module, handle, mask)
    layer.values.requires_grad_()
    return layer


def _dense_copy(module: nn.Module, mask: Tensor | None) -> nn.Module:
    """A dense layer with the same masked weight, without the hooks of the original."""
    return _sparse_copy(module, BackendHandle(_NoBackend()), mask).to_dense()


class _NoBackend:
    """Stands where a sparse layer is only a step on the way to a dense one."""

    def unsupported(self, problem: Problem) -> str | None:
        return "it computes nothing"

    def bind(self, problem: Problem, weight: Any) -> Any:
        raise AssertionError("never bound")
