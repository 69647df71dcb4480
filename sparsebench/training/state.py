"""The state of a training on disk: tensors and plain data alone, so that reading it runs no code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from sparsebench.errors import CheckpointError

VERSION = 1


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Write a state; the file appears whole or not at all."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    torch.save({"version": VERSION, **state}, part)
    part.replace(path)


def read_state(path: Path) -> dict[str, Any]:
    """What `write_state` wrote; raises `CheckpointError` naming the file."""
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes torch raise nearly anything
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise CheckpointError(f"{path}: the training cannot go on from it ({line}); delete it to begin anew") from error
    if not isinstance(state, dict) or state.get("version") != VERSION:
        raise CheckpointError(f"{path}: was written by another version of sparsebench; delete it to begin anew")
    return state
