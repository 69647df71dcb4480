"""The global state of a process that a plugin must leave alone: what it is, what changed, how to put it back."""

from __future__ import annotations

import gc
import os
import random
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

Part = tuple[Callable[[], Any], Callable[[Any], object]]


def _denormals_kept() -> bool:
    """False where this thread flushes denormals to zero: half of the least normal float32 is one."""
    least, half = torch.tensor([2.0**-126, 0.5], dtype=torch.float32).split(1)
    return bool((least * half).view(torch.int32).item())


def _numpy_state() -> tuple:
    name, keys, *rest = np.random.get_state()
    return (name, np.asarray(keys).tobytes(), *rest)


def _set_numpy_state(state: tuple) -> None:
    name, keys, *rest = state
    np.random.set_state((name, np.frombuffer(keys, dtype=np.uint32), *rest))


def _set_onednn(on: bool) -> None:
    torch.backends.mkldnn.enabled = on  # type: ignore[assignment]


def _set_gc(on: bool) -> None:
    (gc.enable if on else gc.disable)()


_PLAIN: dict[str, Part] = {
    "torch's number of threads": (torch.get_num_threads, torch.set_num_threads),
    "torch's default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "grad mode": (torch.is_grad_enabled, torch.set_grad_enabled),
    "inference mode": (torch.is_inference_mode_enabled, lambda _: None),
    "autocast": (lambda: torch.is_autocast_enabled("cpu"), lambda on: torch.set_autocast_enabled("cpu", on)),
    "torch's deterministic mode": (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
    "torch's matmul precision": (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    "torch's use of oneDNN": (lambda: torch.backends.mkldnn.enabled, _set_onednn),
    "keeping of denormals": (_denormals_kept, lambda kept: torch.set_flush_denormal(not kept)),
    "the CPUs it runs on": (lambda: os.sched_getaffinity(0), lambda cores: os.sched_setaffinity(0, cores)),
    "garbage collection": (gc.isenabled, _set_gc),  # the stopwatch turns it off, and on again before anybody looks
    "the working directory": (os.getcwd, os.chdir),
}
_OPAQUE: dict[str, Part] = {  # these change to values that mean nothing to a reader
    "torch's random state": (
        lambda: torch.get_rng_state().numpy().tobytes(),
        lambda state: torch.set_rng_state(torch.frombuffer(bytearray(state), dtype=torch.uint8)),
    ),
    "numpy's random state": (_numpy_state, _set_numpy_state),
    "Python's random state": (random.getstate, random.setstate),
    "sys.stdout": (lambda: sys.stdout, lambda stream: setattr(sys, "stdout", stream)),
    "sys.stderr": (lambda: sys.stderr, lambda stream: setattr(sys, "stderr", stream)),
}
_PARTS = _PLAIN | _OPAQUE


class GlobalState:
    """A snapshot of the process; take it with `capture` before foreign code runs."""

    def __init__(self, parts: dict[str, Any]) -> None:
        self._parts = parts

    @classmethod
    def capture(cls) -> GlobalState:
        """The state as it is now."""
        return cls({name: get() for name, (get, _) in _PARTS.items()})

    def changes(self) -> str | None:
        """One sentence that names what is not as it was, from what to what; None if all is."""
        found = []
        for name, (get, _) in _PARTS.items():
            if not _same(before := self._parts[name], now := get()):
                found.append(f"{name} from {before} to {now}" if name in _PLAIN else name)
        return f"it changed {', '.join(found)}" if found else None

    def restore(self) -> None:
        """Put back what changed."""
        for name, (get, put) in _PARTS.items():
            if not _same(self._parts[name], get()):
                put(self._parts[name])


def _same(before: Any, now: Any) -> bool:
    return before is now or bool(before == now)
