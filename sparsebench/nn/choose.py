"""The choice of a backend, or of staying dense, for every linear and conv2d layer of a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from sparsebench.errors import ProblemError, UnsupportedError, UsageError, nearest
from sparsebench.nn.backends import BackendHandle
from sparsebench.nn.capture import Seen, seen_inputs
from sparsebench.nn.problem import problem_of, zero_padding
from sparsebench.nn.tuning import Tuner
from sparsebench.problem import DTYPES, Problem

if TYPE_CHECKING:
    from sparsebench.plugin import Backend

_STATE_HOOKS = (
    "_state_dict_hooks", "_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks",
)  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """What becomes of one layer. `backend` None: it stays dense, for `reason`. `times_ns` is what was measured."""

    names: tuple[str, ...]
    module: nn.Module
    reason: str
    backend: BackendHandle | None = None
    problem: Problem | None = None
    mask: Tensor | None = None
    times_ns: Mapping[str, float] = field(default_factory=dict)


def choose(
    model: nn.Module,
    *,
    example_input: Any,
    backend: str | Backend | BackendHandle = "auto",
    min_sparsity: float = 0.5,
    masks: Mapping[str, Tensor] | None = None,
) -> list[Choice]:
    """One `Choice` for each `nn.Linear` and `nn.Conv2d` of the model, which stays as it is. See `sparsify`."""
    if not 0 <= min_sparsity <= 1:
        raise UsageError(f"min_sparsity = {min_sparsity!r} is not a share; use a number in [0, 1]")
    handle = None if backend == "auto" else BackendHandle(backend)
    _check_device(model)
    found = _layers(model)
    seen = seen_inputs(model, example_input, list(found))
    found = _layers(model)  # lazy layers have become real ones
    masks_of = _assign(masks or {}, found)
    tied = _tied(model)
    tuner = Tuner() if handle is None else None
    choices = []
    for module, names in found.items():
        mask = masks_of.get(module)
        reason = _why_dense(module, tied) or _why_not(module, mask, min_sparsity)
        if reason is None and module not in seen:
            reason = "the example input does not reach it"
        if reason is not None:
            choices.append(Choice(names, module, reason))
        else:
            choices.append(_choice(names, module, mask, seen[module], handle, tuner))
    return choices


def layer_problems(
    model: nn.Module, example_input: Any, sparsity: float, pattern: str, threads: int
) -> dict[tuple[str, ...], Problem | str]:
    """By the names of each layer that `sparsify` could exchange: the problem it poses, or why it poses none.

    Every layer is taken to be `sparsity` sparse with `pattern`. Layers that the example does not reach are left out.
    """
    _check_device(model)
    seen = seen_inputs(model, example_input, list(_layers(model)))
    tied = _tied(model)
    found: dict[tuple[str, ...], Problem | str] = {}
    for module, names in _layers(model).items():
        if module in seen:
            try:
                why = _why_dense(module, tied)
                found[names] = why or problem_of(module, seen[module].shape, sparsity, threads, pattern)
            except ProblemError as error:
                found[names] = str(error)
    return found


def _choice(
    names: tuple[str, ...],
    module: Any,
    mask: Tensor | None,
    seen: Seen,
    handle: BackendHandle | None,
    tuner: Tuner | None,
) -> Choice:
    problem = problem_of(module, seen.shape, sparsity=_sparsity(module, mask))
    if tuner is not None:
        best, reason, times = tuner.best(module, mask, problem, seen)
        return Choice(names, module, reason, best, problem, mask, times)
    assert handle is not None
    refused = handle.unsupported(problem)
    if refused is not None:
        return Choice(names, module, f"{handle.name}: {refused}", None, problem)
    return Choice(names, module, f"{handle.name} was asked for", handle, problem, mask)


def _layers(model: nn.Module) -> dict[nn.Module, tuple[str, ...]]:
    """Every layer of exactly these types, with all its names: subclasses may use their weight in other ways."""
    found: dict[nn.Module, tuple[str, ...]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if type(module) in (nn.Linear, nn.Conv2d):
            found[module] = (*found.get(module, ()), name)
    return found


def _why_dense(module: Any, tied: set[int]) -> str | None:
    """Why a layer cannot be replaced by any sparse layer; None if it can."""
    weight = module._parameters.get("weight")
    if weight is None or set(module._parameters) != {"weight", "bias"} or module._buffers or module._modules:
        return "its parameters are not plain `weight` and `bias` (pruned or reparametrized by torch.nn.utils?)"
    if id(weight) in tied:
        return "its weight is shared with another layer"
    if any(getattr(module, hooks, None) for hooks in _STATE_HOOKS) or "forward" in vars(module):
        return "it has state_dict hooks or a forward of its own"
    if weight._backward_hooks or getattr(weight, "_post_accumulate_grad_hooks", None):
        return "its weight has tensor hooks"
    if str(weight.dtype).removeprefix("torch.") not in DTYPES:
        return f"it is {weight.dtype}"
    if isinstance(module, nn.Conv2d):
        try:
            zero_padding(module)
        except UnsupportedError as error:
            return str(error)
    return None


def _why_not(module: Any, mask: Tensor | None, min_sparsity: float) -> str | None:
    sparsity = _sparsity(module, mask)
    return f"its sparsity {sparsity:.3g} is under {min_sparsity:g}" if sparsity < min_sparsity else None


def _sparsity(module: Any, mask: Tensor | None) -> float:
    kept = module.weight.detach() if mask is None else mask
    return 1 - int(kept.count_nonzero()) / max(1, kept.numel())


def _tied(model: nn.Module) -> set[int]:
    uses = Counter(id(p) for module in model.modules() for p in module._parameters.values() if p is not None)
    return {each for each, count in uses.items() if count > 1}


def _assign(masks: Mapping[str, Tensor], found: Mapping[nn.Module, tuple[str, ...]]) -> dict[nn.Module, Tensor]:
    """The masks by layer; a name is that of the layer or of its weight parameter."""
    by_name = {name: module for module, names in found.items() for name in names}
    assigned: dict[nn.Module, Tensor] = {}
    for name, mask in masks.items():
        module: Any = by_name.get(name, by_name.get(name.removesuffix("weight").removesuffix(".")))
        if module is None:
            raise UsageError(f"masks: no linear or conv2d layer is named {name!r}{nearest(name, by_name)}")
        if mask.dtype.is_floating_point or mask.shape != module.weight.shape:
            raise UsageError(
                f"masks[{name!r}] is {mask.dtype} {tuple(mask.shape)}; it must be bool {tuple(module.weight.shape)}"
            )
        assigned[module] = mask.bool()
    return assigned


def _check_device(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if parameter.device.type != "cpu":
            raise UnsupportedError(
                f"{name} is on {parameter.device}; sparse kernels run on the cpu: use model.cpu() first"
            )
