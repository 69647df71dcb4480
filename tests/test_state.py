"""Every part of the global state is seen when it changes, named, and put back."""

import gc
import io
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from sparsebench.state import GlobalState

CHANGES: dict[str, tuple[Callable[[], object], str]] = {
    "threads": (
        lambda: torch.set_num_threads(torch.get_num_threads() + 1),
        f"torch's number of threads from {torch.get_num_threads()} to {torch.get_num_threads() + 1}",
    ),
    "dtype": (lambda: torch.set_default_dtype(torch.float64), "default dtype from torch.float32 to torch.float64"),
    "grad mode": (lambda: torch.set_grad_enabled(False), "grad mode from True to False"),
    "autocast": (lambda: torch.set_autocast_enabled("cpu", True), "autocast from False to True"),
    "deterministic": (lambda: torch.set_deterministic_debug_mode("warn"), "deterministic mode from 0 to 1"),
    "matmul precision": (lambda: torch.set_float32_matmul_precision("medium"), "from highest to medium"),
    "denormals": (lambda: torch.set_flush_denormal(True), "keeping of denormals from True to False"),
    "torch random": (lambda: torch.rand(1), "torch's random state"),
    "numpy random": (lambda: np.random.rand(), "numpy's random state"),
    "python random": (lambda: random.random(), "Python's random state"),
    "oneDNN": (lambda: setattr(torch.backends.mkldnn, "enabled", False), "use of oneDNN from True to False"),
    "garbage collection": (gc.disable, "garbage collection from True to False"),
    "directory": (lambda: os.chdir("/"), "the working directory"),
    "stdout": (lambda: setattr(sys, "stdout", io.StringIO()), "sys.stdout"),
}


def test_nothing_changes_by_looking() -> None:
    state = GlobalState.capture()
    assert state.changes() is None
    state.restore()
    assert state.changes() is None


@pytest.mark.parametrize(("change", "sentence"), CHANGES.values(), ids=CHANGES)
def test_a_change_is_named_and_put_back(
    change: Callable[[], object], sentence: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    state = GlobalState.capture()
    try:
        change()
        changes = state.changes()
    finally:
        state.restore()
    assert changes is not None
    assert changes.startswith("it changed ")
    assert sentence in changes
    assert "," not in changes
    assert state.changes() is None


def test_other_cpus_are_a_change() -> None:
    allowed = os.sched_getaffinity(0)
    assert len(allowed) > 1, "the machine has one CPU: there is no other"
    try:
        os.sched_setaffinity(0, {min(allowed)})
        pinned = GlobalState.capture()
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
        assert pinned.changes() == f"it changed the CPUs it runs on from {{{min(allowed)}}} to {allowed}"
        pinned.restore()
        assert os.sched_getaffinity(0) == {min(allowed)}
    finally:
        os.sched_setaffinity(0, allowed)


def test_several_changes_are_one_sentence() -> None:
    state = GlobalState.capture()
    random.random()
    torch.rand(1)
    assert state.changes() == "it changed torch's random state, Python's random state"
    state.restore()


def test_the_random_streams_go_on_where_they_were() -> None:
    state = GlobalState.capture()
    drawn = (torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random())
    state.restore()
    assert (torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()) == drawn
