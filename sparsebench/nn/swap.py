"""`sparsify` and `densify`: exchange the layers of a model in place, and hand their optimizer slots over."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sparsebench.nn.choose import Choice, choose
from sparsebench.nn.conv2d import SparseConv2d
from sparsebench.nn.layer import SparseLayer
from sparsebench.nn.linear import SparseLinear
from sparsebench.nn.optimizer import check_slots, replace_parameter

if TYPE_CHECKING:
    from sparsebench.nn.backends import BackendHandle
    from sparsebench.plugin import Backend

LOG = logging.getLogger("sparsebench.nn")
_HOOKS = (
    "_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs", "_backward_hooks", "_backward_pre_hooks", "_is_full_backward_hook",
)  # fmt: skip


def sparsify(
    model: nn.Module,
    *,
    example_input: Any,
    backend: str | Backend | BackendHandle = "auto",
    min_sparsity: float = 0.5,
    optimizer: Optimizer | None = None,
    masks: Mapping[str, Tensor] | None = None,
) -> nn.Module:
    """Exchange linear and conv2d layers for sparse ones, in place; returns the model (the twin of a lone layer).

    A layer's pattern is `masks[name]` (name of the layer or of its weight; bool) or else its non-zeros. Layers whose
    sparsity is at least `min_sparsity` are exchanged: by a named backend (or an instance) all it supports; by "auto"
    those that some installed float32 backend makes faster than the best dense layout, as `sparsebench tune` found on
    this machine or else as measured here: forward and backward in training mode, forward alone in eval mode. What was
    tuned holds for the same shape, batch, dtype and threads, about the same sparsity, and the backends as they are now;
    with SPARSEBENCH_PLANS set to nothing everything is measured. `example_input` (a tensor, tuple or dict) is passed
    once through the model to see the shapes. Left dense: subclasses, layers with a shared, reparametrized or hooked
    weight, with state_dict hooks, with padding other than equal zeros, and layers the example does not reach; the log
    `sparsebench.nn` says why at level INFO, and `choose` tells it beforehand. A layer at several places of the model
    becomes one sparse layer at the same places.

    `optimizer`: its groups then hold `values` in place of the weight, with the slots of the kept elements; bias
    parameters stay the same objects. Raises `UsageError` before anything changes if a name or a slot cannot be used.
    """
    options: dict[str, Any] = {"backend": backend, "min_sparsity": min_sparsity, "masks": masks}
    chosen: list[tuple[Choice, SparseLayer]] = []
    for choice in choose(model, example_input=example_input, **options):
        LOG.info("%s: %s", " = ".join(choice.names) or type(model).__name__, choice.reason)
        if choice.backend is not None:
            kind = SparseConv2d if isinstance(choice.module, nn.Conv2d) else SparseLinear
            chosen.append((choice, kind.from_dense(choice.module, choice.backend, choice.mask)))
            if optimizer is not None:
                check_slots(optimizer, choice.module.weight)  # type: ignore[arg-type]
    for choice, layer in chosen:
        layer._dense_format = _format_of(choice.module.weight)  # type: ignore[arg-type]
        _take_over(choice.module, layer, layer.snapshot().gather, optimizer)
        model = _put(model, choice.names, layer)
    return model


def densify(model: nn.Module, optimizer: Optimizer | None = None) -> nn.Module:
    """Exchange all sparse layers for dense ones with zeros outside the pattern, in place; undoes `sparsify`.

    `optimizer`: its groups hold the weights again, with slots that are zero outside the pattern.
    """
    names: dict[SparseLayer, tuple[str, ...]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, SparseLinear | SparseConv2d):
            names[module] = (*names.get(module, ()), name)
            if optimizer is not None:
                check_slots(optimizer, module.values)
    for layer, places in names.items():
        pattern = layer.snapshot()

        def scatter(values: Tensor, pattern: Any = pattern, form: Any = layer._dense_format) -> Tensor:
            made: Tensor = pattern.with_values(values).to_dense()
            return made.contiguous(memory_format=form)

        dense = layer.to_dense()  # type: ignore[operator]
        dense.weight.data = dense.weight.data.contiguous(memory_format=layer._dense_format)
        _take_over(layer, dense, scatter, optimizer)
        model = _put(model, places, dense)
    return model


def _format_of(weight: Tensor) -> torch.memory_format:
    """The layout that the weight goes back to: a convolution that ran in channels-last shall not turn it every time."""
    turned = weight.dim() == 4 and weight.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if turned and not weight.is_contiguous() else torch.contiguous_format


def sparse_layers(model: nn.Module) -> dict[str, SparseLayer]:
    """The sparse layers of a model by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, SparseLayer)}


def _take_over(old: Any, new: Any, convert: Callable[[Tensor], Tensor], optimizer: Optimizer | None) -> None:
    """Give the new layer the old one's bias, gradient, hooks, own attributes and optimizer slots."""
    before, after = (m.values if isinstance(m, SparseLayer) else m.weight for m in (old, new))
    new.bias = old.bias
    if before.grad is not None:
        after.grad = convert(before.grad)
    for name in _HOOKS:  # the same dicts, so that handles the user holds still remove them
        setattr(new, name, getattr(old, name))
    for name, value in vars(old).items():
        if not name.startswith("_") and name not in vars(new):
            setattr(new, name, value)
    if optimizer is not None:
        replace_parameter(optimizer, before, after, convert)


def _put(model: nn.Module, names: tuple[str, ...], layer: nn.Module) -> nn.Module:
    for name in names:
        if not name:
            return layer
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, layer)
    return model
