"""All that a plugin imports: hooks, the specs they return, what a spec's `load` must be, and the errors to raise.

    from sparsebench.plugin import BackendSpec, hookimpl

    @hookimpl
    def sparsebench_backends():
        return [BackendSpec(name="mine", summary="…", load=f"{__name__}:Mine", ops=("linear",))]

Specs are data: nothing heavy is imported until a worker calls `load`. What needs torch (`SparseWeight`, `Update`,
`top_k_mask`) is exported lazily, so a plugin that imports this module alone costs nothing to list.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import pluggy

from sparsebench.errors import BudgetError, DatasetCorrupt, DatasetMissing, ProblemError, UnsupportedError, UsageError
from sparsebench.problem import Problem

if TYPE_CHECKING:
    from torch import Tensor

    from sparsebench.plans import tuned_plan
    from sparsebench.pruning.calibration import Calibration
    from sparsebench.pruning.context import Context
    from sparsebench.pruning.contract import NM, Event, Update
    from sparsebench.pruning.densities import erdos_renyi_kernel
    from sparsebench.pruning.hessian import columns, damped, hessian, input_norms, inverse, inverse_factor
    from sparsebench.pruning.latency import LATENCY_LEVELS
    from sparsebench.pruning.masks import kept, nm_mask, prunable, top_k_mask
    from sparsebench.pruning.sample_gradients import gradient_count, sample_gradients
    from sparsebench.pruning.target import Speedup, overall
    from sparsebench.training.data import Examples, Splits
    from sparsebench.weight import SparseWeight

API = 1
hookspec = pluggy.HookspecMarker("sparsebench")
hookimpl = pluggy.HookimplMarker("sparsebench")

_LAZY = {
    "Calibration": "sparsebench.pruning.calibration",
    "Context": "sparsebench.pruning.context",
    "Event": "sparsebench.pruning.contract",
    "Examples": "sparsebench.training.data",
    "LATENCY_LEVELS": "sparsebench.pruning.latency",
    "NM": "sparsebench.pruning.contract",
    "SparseWeight": "sparsebench.weight",
    "Speedup": "sparsebench.pruning.target",
    "Splits": "sparsebench.training.data",
    "Update": "sparsebench.pruning.contract",
    "columns": "sparsebench.pruning.hessian",
    "damped": "sparsebench.pruning.hessian",
    "erdos_renyi_kernel": "sparsebench.pruning.densities",
    "gradient_count": "sparsebench.pruning.sample_gradients",
    "hessian": "sparsebench.pruning.hessian",
    "input_norms": "sparsebench.pruning.hessian",
    "inverse": "sparsebench.pruning.hessian",
    "inverse_factor": "sparsebench.pruning.hessian",
    "kept": "sparsebench.pruning.masks",
    "nm_mask": "sparsebench.pruning.masks",
    "overall": "sparsebench.pruning.target",
    "prunable": "sparsebench.pruning.masks",
    "sample_gradients": "sparsebench.pruning.sample_gradients",
    "top_k_mask": "sparsebench.pruning.masks",
    "tuned_plan": "sparsebench.plans",
}
__all__ = [
    "API", "LATENCY_LEVELS", "NM", "AllocatorSpec", "Backend", "BackendSpec", "BudgetError", "Calibration",
    "Context", "DatasetCorrupt", "DatasetMissing", "DatasetSpec", "Event", "Examples", "Kernel", "MethodSpec",
    "ModelSpec", "Problem", "ProblemError", "SparseWeight", "Speedup", "Splits", "UnsupportedError", "Update",
    "UsageError", "columns", "damped", "erdos_renyi_kernel", "gradient_count", "hessian", "hookimpl", "hookspec",
    "input_norms", "inverse", "inverse_factor", "kept", "nm_mask", "overall", "prunable", "sample_gradients",
    "top_k_mask", "tuned_plan",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'sparsebench.plugin' has no attribute {name!r}")


@dataclass(frozen=True, kw_only=True)
class BackendSpec:
    """A provider of kernels. `load` names a class or factory that is called without arguments and gives a `Backend`."""

    name: str
    summary: str
    load: str  # "package.module:object"
    ops: tuple[str, ...]
    dtypes: tuple[str, ...] = ("float32",)
    patterns: tuple[str, ...] = ()  # () = any
    isa: tuple[str, ...] = ()  # CPU flags it needs, as /proc/cpuinfo names them
    requires: tuple[str, ...] = ()  # import names it needs
    precision: str = "float32"  # the class it is compared in: "float32", "bfloat16", "float64"
    peer: bool = False  # other people's software, to compare with: what becomes of its rows does not fail a run
    options: Mapping[str, tuple] = field(default_factory=dict)  # {"isa": ("base", "avx2")} -> cpp@isa=avx2
    api: int = API

    def refuses(self, problem: Problem) -> str | None:
        """Why the spec alone rules a problem out, in one sentence; None if the backend is to be asked."""
        if problem.op not in self.ops:
            return f"{self.name} does {' and '.join(self.ops)}, not {problem.op}"
        if problem.dtype not in self.dtypes:
            return f"{self.name} computes in {' and '.join(self.dtypes)}, not {problem.dtype}"
        if self.patterns and not {problem.pattern, problem.pattern.partition(":")[0]} & set(self.patterns):
            return f"{self.name} takes the patterns {' and '.join(self.patterns)}, not {problem.pattern}"
        return None


@dataclass(frozen=True, kw_only=True)
class MethodSpec:
    """A pruning or sparse-training method; `source` is the paper and its section.

    `kind` says when it decides: "none" (it never prunes: the baseline), "control" (nor does it: it changes values),
    "fixed" (before training), "one-shot" (after it), "gradual", "alternating", "dynamic", "optimizer", "reparametrised"
    (in its course), "rounds" (in several). `needs` are words of `sparsebench.pruning.contract.NEEDS`.
    `parameters` are the options of its name with their defaults, text, numbers or bools: gmp@regrow=true.
    `proof` is how it is known to be right, beside the host's rules, and `cost` what it takes beyond a plain training.
    """

    name: str
    summary: str
    load: str
    kind: str
    source: str
    needs: frozenset[str] = frozenset()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    proof: str = ""
    cost: str = ""
    api: int = API

    @property
    def prunes(self) -> bool:
        """Whether it ever drops a weight: what does not runs once, beside what the others are compared with."""
        return self.kind not in ("none", "control")


@dataclass(frozen=True, kw_only=True)
class AllocatorSpec:
    """Says how many weights each layer keeps.

    With `argument`, what stands behind a colon in its name ("nm:2:4") is given to `load`; the text says what that is.
    `parameters` are the options of its name with their defaults, given to `load` by name: spdy@images=512.
    """

    name: str
    summary: str
    load: str
    source: str
    argument: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    api: int = API


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A model: `load(num_classes=…, in_channels=…)` gives an nn.Module; `inputs` says what it takes.

    "1x28x28" are images of that size, with `in_channels` as the data have them; "features" is [n, in_channels] of
    anything. "tokens" is text int64 [n, T] of any length, "tokens:128" of at most 128: `num_classes` is the vocabulary,
    `in_channels` is T, and it gives logits [n, T, num_classes] of the next token at every position.
    """

    name: str
    summary: str
    load: str
    inputs: str
    api: int = API


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """A data set. `load` names a callable: `load(root)` gives `Splits(train, validation, test, note)`.

    The note, if there is one, is shown beside its rows: that only a part of the set is here.

    `root` is the user's folder of data sets (a `Path`, or None if none is set). Inputs are float32 [n, …], labels int64
    [n] under `classes`. Of text both are int64 [n, T] under `classes`, the vocabulary, and labels are the next tokens;
    parts are cut before windows are, so that no two share a token. It raises `DatasetMissing`, saying how to get the
    set, or `DatasetCorrupt`, naming the file.

    Optional: a function `missing(root) -> str | None`, an attribute of the callable or a neighbour in its module, says
    without loading anything why the set is not here and how to get it (None if it is): the row is skipped with that
    reason. A callable with a keyword `shape` makes its inputs for the model: it gets (channels, height, width), or
    (features,) where the model takes flat ones. One with a keyword `length` cuts its text into windows of T tokens.
    """

    name: str
    summary: str
    load: str
    licence: str
    classes: int
    api: int = API


@dataclass(frozen=True, kw_only=True)
class PluginInfo:
    """A plugin module as it was found: the record in `run.json` and in `sparsebench list plugins`."""

    name: str
    distribution: str = ""
    version: str = ""
    sha256: str = ""
    status: str = "ok"  # "ok" | "quarantined"
    error: str = ""


class Backend(Protocol):
    """What `BackendSpec.load` gives.

    Optional: `dense = True` says that this backend is torch's own dense layer: model cases leave layers as they are.

    Optional: `plans(problem) -> Sequence[Mapping[str, str | int]]` gives the plans worth measuring for a problem, the
    first of them what `bind` would choose itself; none or one means that there is nothing to measure. A plan chooses
    from the spec's `options`, and is a backend of its own: `sparsebench tune` loads `name@tile=4,layout=packed` for
    {"tile": 4, "layout": "packed"}, verifies it, and races it. What won is there for `bind` to ask for:
    `tuned_plan(name, problem)`, None if nobody measured the problem here. Options that `load` was called with go
    before a tuned plan, and a kernel's `note` says which plan it uses.
    """

    def unsupported(self, problem: Problem) -> str | None:
        """Why this backend cannot do the problem, in one sentence; None if it can."""

    def bind(self, problem: Problem, weight: SparseWeight) -> Kernel:
        """A kernel for one weight."""


class Kernel(Protocol):
    """One bound weight. x is [batch, in] or [N, C, H, W] with any strides; results have any strides.

    Every call runs under `torch.no_grad` with detached tensors and must not change its inputs. A kernel is used by one
    thread at a time and makes its own scratch; batch and spatial size may differ from call to call. A non-finite x[j]
    must reach every output whose pattern contains j. Address and version of a tensor do not tell its content:
    optimizers write without moving either.

    Optional: `forward_saving(x, bias=None) -> (output, saved)` lets backward reuse a packing. `dense_grad = True` says
    that backward's second result is the gradient of the whole dense weight: the host gathers, outside the clock.
    `note` (str) is shown beside the row, `memory_format` ("channels-last") says how conv2d wants to be fed.
    """

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """The layer's output, [batch, out] or [N, out, H', W']."""

    def backward(
        self, x: Tensor, grad_output: Tensor, needs: tuple[bool, bool] = (True, True), saved: Any = None
    ) -> tuple[Tensor | None, Tensor | None]:
        """(grad_input, gradient of the values: one per non-zero in CSR order); `saved` only with `forward_saving`."""

    def set_values(self, values: Tensor) -> None:
        """Take new values [nnz] in CSR order; the pattern stays."""


class Hooks:
    """The hooks; each returns a list of specs."""

    @hookspec
    def sparsebench_backends(self) -> list[BackendSpec]:  # type: ignore[empty-body]
        """Kernel backends."""

    @hookspec
    def sparsebench_methods(self) -> list[MethodSpec]:  # type: ignore[empty-body]
        """Pruning methods."""

    @hookspec
    def sparsebench_allocators(self) -> list[AllocatorSpec]:  # type: ignore[empty-body]
        """Allocators."""

    @hookspec
    def sparsebench_models(self) -> list[ModelSpec]:  # type: ignore[empty-body]
        """Models."""

    @hookspec
    def sparsebench_datasets(self) -> list[DatasetSpec]:  # type: ignore[empty-body]
        """Data sets."""
