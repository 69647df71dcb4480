"""Which layers a forward pass reaches, and with what shapes; it leaves no trace in model or random state."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Seen:
    """The largest input of a layer: its shape, and whether it was channels-last."""

    shape: tuple[int, ...]
    channels_last: bool


def seen_inputs(model: nn.Module, example_input: Any, layers: list[nn.Module]) -> dict[nn.Module, Seen]:
    """What each of `layers` is called with in `model(example_input)`; layers that are not reached are left out.

    `example_input` is a tensor, a tuple of arguments or a dict of keyword arguments. The pass runs in eval mode without
    gradients; batch-norm statistics and torch's random state stay as they are. The model's own hooks do fire.
    """
    seen: dict[nn.Module, Seen] = {}

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = args[0] if args else kwargs["input"]
        if module not in seen or math.prod(x.shape) > math.prod(seen[module].shape):
            seen[module] = Seen(tuple(x.shape), _channels_last(x))

    handles = [layer.register_forward_pre_hook(note, with_kwargs=True) for layer in layers]
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), _in_eval(model), _no_fast_path():
            _call(model, example_input)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _call(model: Callable[..., Any], example_input: Any) -> Any:
    if isinstance(example_input, Mapping):
        return model(**example_input)
    if isinstance(example_input, tuple | list):
        return model(*example_input)
    return model(example_input)


def _channels_last(x: Tensor) -> bool:
    return x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


@contextlib.contextmanager
def _in_eval(model: nn.Module) -> Iterator[None]:
    # The flags themselves, not train(): models override it, and what it does need not be undone by a second call.
    flags = [(module, module.training) for module in model.modules()]
    for module, _ in flags:
        module.training = False
    try:
        yield
    finally:
        for module, flag in flags:
            module.training = flag


@contextlib.contextmanager
def _no_fast_path() -> Iterator[None]:
    # Transformer layers in eval mode read the weights of their linear layers without calling them.
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
