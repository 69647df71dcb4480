"""Runs one check of the grid against one backend, and says what came of it."""

from __future__ import annotations

import math
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsebench.errors import UnsupportedError
from sparsebench.oracle import Oracle, make_oracle, oracle_of
from sparsebench.patterns import make_bias, make_grad_output, make_input, make_weight
from sparsebench.plugin import Backend, BackendSpec
from sparsebench.problem import Problem
from sparsebench.testing.grid import FEEDS, WEIGHTS, Check
from sparsebench.tolerance import EPS, Finding, compare, judged_precision
from sparsebench.verify import verify_kernel, verify_once
from sparsebench.weight import SparseWeight


@dataclass(frozen=True)
class CheckResult:
    """`status` is ok, wrong, error or unsupported; `reason` is one sentence unless it is ok."""

    name: str
    status: str
    reason: str | None = None
    max_rel_err: float = 0.0
    tolerance: float = 0.0


def run_check(backend: Backend, spec: BackendSpec, check: Check) -> CheckResult:
    """Bind and examine; whatever Python error the backend raises is a result."""
    try:
        reason = spec.refuses(check.problem) or backend.unsupported(check.problem)
        if isinstance(reason, str):
            return CheckResult(check.name, "unsupported", reason)
        if reason is not None:
            raise TypeError(f"unsupported() returned {type(reason).__name__}; it must return a reason or None")
        with threads_set(check.problem.threads):
            finding = _examine(backend, check, judged_precision(spec.precision, check.problem.dtype))
    except UnsupportedError as error:
        return CheckResult(check.name, "unsupported", str(error))
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{last.name}, {Path(last.filename).name}:{last.lineno}"
        text = f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")
        return CheckResult(check.name, "error", f"{text} (in {where})")
    status = "ok" if finding.ok else "wrong"
    return CheckResult(check.name, status, finding.reason, finding.max_rel_err, finding.tolerance)


def _examine(backend: Backend, check: Check, precision: str) -> Finding:
    problem, kind = check.problem, check.kind
    if kind in FEEDS:
        oracle = _laid_out(problem, kind)
        return verify_once(_bind(backend, problem, oracle.weight), oracle, precision)
    if kind == "alternating shapes":
        return _alternate(backend, problem, precision)
    if kind == "non-finite input":
        return _non_finite(backend, problem, precision)
    oracle = _of_weight(problem, _special_weight(problem, kind)) if kind in WEIGHTS else make_oracle(problem)
    return verify_kernel(_bind(backend, problem, oracle.weight), oracle, precision)


def _bind(backend: Backend, problem: Problem, weight: SparseWeight) -> Any:
    with torch.no_grad():
        return backend.bind(problem, weight)


def _of_weight(problem: Problem, weight: SparseWeight) -> Oracle:
    return oracle_of(problem, weight, make_input(problem), make_grad_output(problem), make_bias(problem))


def _special_weight(problem: Problem, kind: str) -> SparseWeight:
    """The problem's weight with what the kind says done to its pattern or values."""
    weight = make_weight(problem)
    if kind == "explicit zeros":
        values = weight.values.clone()
        values[::3] = 0
        return weight.with_values(values)
    mask, width = weight.mask().reshape(weight.rows, -1), _block_width(problem)
    last = (weight.columns - 1) // width * width
    if kind == "full weight":
        mask[:] = True
    elif kind == "empty rows and columns":
        mask[[0, weight.rows // 2, -1]] = False
        mask[:, :width] = False
        mask[:, last:] = False
    elif kind in ("empty weight", "one non-zero"):
        mask[:] = False
        mask[-1, last:] = kind == "one non-zero"
    dense = weight.to_dense()
    dense[~weight.mask()] = 1.5  # values where only the new mask has some
    return SparseWeight.from_dense(dense, mask.reshape(weight.shape))


def _block_width(problem: Problem) -> int:
    """Columns that a block pattern keeps or prunes together; 1 for other patterns."""
    return int(problem.pattern.partition(":")[2]) if problem.pattern.startswith("block:") else 1


def _laid_out(problem: Problem, kind: str) -> Oracle:
    """The oracle of inputs that lie in memory as autograd and slicing leave them."""
    x, grad_output = (_lay_out(tensor, kind) for tensor in (make_input(problem), make_grad_output(problem)))
    return oracle_of(problem, make_weight(problem), x, grad_output, make_bias(problem))


def _lay_out(tensor: Tensor, kind: str) -> Tensor:
    if kind == "transposed":
        return tensor.transpose(0, 1).contiguous().transpose(0, 1)
    if kind == "every other element":
        wide = tensor.new_full((*tensor.shape[:-1], 2 * tensor.shape[-1]), math.nan)
        wide[..., ::2] = tensor
        return wide[..., ::2]
    if kind == "unaligned":  # one element behind a 64-byte boundary
        flat = tensor.new_full((tensor.numel() + 1,), math.nan)
        flat[1:] = tensor.reshape(-1)
        return flat[1:].view(tensor.shape)
    if kind == "expanded":  # the gradient of a sum over the batch, and one image for all
        return tensor[:1].expand(tensor.shape)
    return tensor.contiguous(memory_format=torch.channels_last)


def _alternate(backend: Backend, problem: Problem, precision: str) -> Finding:
    """One kernel, fed other batch and spatial sizes than it was told of, and then the first ones again."""
    weight = make_weight(problem)
    kernel = _bind(backend, problem, weight)
    sizes: list[dict[str, Any]] = [{}, {"batch": 1}, {"batch": problem.batch * 4 + 1}, {"batch": 2}, {}]
    if problem.op == "conv2d":
        sizes[3] |= {"height": problem.height * 2 + 1, "width": problem.width + 3}
        sizes.insert(2, {"height": problem.height - 2, "width": problem.width - 3})
    findings = (verify_once(kernel, _of_weight(replace(problem, **size), weight), precision) for size in sizes)
    return max(findings, key=lambda finding: (not finding.ok, finding.max_rel_err))


def _non_finite(backend: Backend, problem: Problem, precision: str) -> Finding:
    """A non-finite x[j] must reach every output whose pattern contains j; others may be right or NaN."""
    weight, x, bias = make_weight(problem), make_input(problem), make_bias(problem)
    clean = oracle_of(problem, weight, x, make_grad_output(problem), bias)
    spoiled = torch.zeros_like(x)
    spoiled.view(-1)[1 :: max(3, x.numel() // 5)] = 1
    reached = oracle_of(problem, _ones(weight), spoiled, clean.grad_output).forward.value != 0
    kernel = _bind(backend, problem, weight)
    for poison in (math.nan, math.inf, -math.inf):
        with torch.no_grad():
            got = kernel.forward(x.masked_fill(spoiled != 0, poison), bias)
        finding = compare("shape", got, clean.forward.value, torch.full_like(clean.forward.bound, math.inf), precision)
        if not isinstance(got, Tensor) or got.shape != reached.shape:
            return finding
        if bool(torch.isfinite(got[reached]).any()):
            reason = f"{poison} in x does not reach every output whose pattern contains it"
            return Finding(False, "non-finite input", reason, math.inf, 8 * EPS[precision])
        finite = torch.where(torch.isnan(got) | reached, clean.forward.value.to(got.dtype), got)
        finding = compare(f"forward beside {poison}", finite, *clean.forward, precision)
        if not finding.ok:
            return finding
    return finding


def _ones(weight: SparseWeight) -> SparseWeight:
    return weight.with_values(torch.ones_like(weight.values))


@contextmanager
def threads_set(count: int) -> Iterator[None]:
    """torch's number of threads, put back at the end."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
