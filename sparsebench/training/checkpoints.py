"""Checkpoints without code in them: safetensors, .npz of NumPy, .bin of llama2.c, torch files read as mere weights."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparsebench.errors import CheckpointError, nearest
from sparsebench.pruning.export import read_export
from sparsebench.training._llama2c import read_llama2c
from sparsebench.training._npz import read_npz

WRAPPERS = ("state_dict", "model")  # where training scripts put the state dict beside epoch and optimizer
SUFFIXES = (".npz", ".safetensors", ".pt", ".bin")
LLAMA2C = "checkpoint_legacy.bin"  # in a folder of its own, beside its tokenizer
TORCH = (b"PK", b"\x80")  # how files of torch.save begin, zip or pickle; some are called .bin
PREFIXES = ("module.", "_orig_mod.")  # what DataParallel and torch.compile put before every name
# What one layer is called here and there: as CIFAR code and as torchvision has it, as Caffe and as PyTorch code has it.
SPELLINGS = (("linear", "fc"), ("shortcut", "downsample"), ("ip1", "fc1"), ("ip2", "fc2"), ("ip3", "fc3"))


def find_checkpoint(name: str, root: Path | None) -> Path:
    """The file that `name` means: a path, or NAME with one of `SUFFIXES` below models/ of the data folder.

    A folder NAME may stand there in its place, with llama2.c's checkpoint_legacy.bin. Raises `CheckpointError` saying
    where it looked, with near misses.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    if root is None:
        raise CheckpointError(f"checkpoint {name!r} is no file here, and SPARSEBENCH_DATA names no folder to look in")
    folder = root / "models"
    for path in (*(folder / f"{name}{suffix}" for suffix in SUFFIXES), folder / name / LLAMA2C):
        if path.is_file():
            return path
    known = {file.stem for file in folder.glob("*") if file.suffix in SUFFIXES}
    known |= {file.parent.name for file in folder.glob(f"*/{LLAMA2C}")}
    raise CheckpointError(
        f"checkpoint {name!r} is no file here, nor is it in {folder} with {', '.join(SUFFIXES)}{nearest(name, known)}"
    )


def save_checkpoint(state: Mapping[str, Tensor], path: str | Path) -> None:
    """Write a state dict as safetensors; the file appears whole or not at all."""
    from safetensors.torch import save_file

    path = Path(path)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    # Copies: safetensors refuses views and shared memory, which a state dict may hold.
    save_file(
        {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}, part
    )
    part.replace(path)


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a .safetensors, .npz or llama2.c file, or in one of `torch.save`; raises `CheckpointError`.

    Names are those of the file; `load_checkpoint` fits them to a model.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    state = _read(path)
    for wrapper in WRAPPERS:
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not isinstance(state, Mapping) or not state:
        raise CheckpointError(f"{path}: holds {type(state).__name__}, not a state dict of named tensors")
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise CheckpointError(
                f"{path}: {name!r} is {type(tensor).__name__}, not a tensor; save the state dict alone"
            )
    return dict(state)


def load_checkpoint(model: nn.Module, path: str | Path) -> None:
    """Load a checkpoint into `model`, all of it or nothing; names may differ as `fitted` says.

    Raises `CheckpointError` naming the file and the first names or shapes that do not fit.
    """
    own = model.state_dict()
    state = fitted(read_checkpoint(path), own, path)
    # Batch norms older than torch 0.4.1 counted no batches; the counter is no result of training.
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    if missing:
        raise CheckpointError(f"{path}: does not have {_first(missing)}, which the model needs")
    unknown = [name for name in state if name not in own]
    if unknown:
        raise CheckpointError(f"{path}: has {_first(unknown)}, which the model does not know")
    odd = [name for name, tensor in state.items() if tensor.shape != own[name].shape and not _is_csr(name, own)]
    if odd:
        raise CheckpointError(
            f"{path}: {odd[0]} is {list(state[odd[0]].shape)} and the model has {list(own[odd[0]].shape)}"
            + (f" (and {len(odd) - 1} more differ)" if odd[1:] else "")
        )
    model.load_state_dict({**own, **state})


def fitted(state: Mapping[str, Tensor], own: Mapping[str, Tensor], path: str | Path) -> dict[str, Tensor]:
    """`state` in the names of the model that has `own`, where they differ by `PREFIXES` or by one of `SPELLINGS`.

    A name that the model has stays, as does one that fits in no spelling. Raises `CheckpointError` naming `path` if two
    names come to the same.
    """
    found: dict[str, str] = {}
    for name in state:
        mine = name if name in own else next((other for other in _spellings(name) if other in own), name)
        if mine in found:
            raise CheckpointError(f"{path}: has {found[mine]} and {name}, and both are {mine} of the model")
        found[mine] = name
    return {mine: state[name] for mine, name in found.items()}


def _spellings(name: str) -> Iterator[str]:
    while prefix := next((prefix for prefix in PREFIXES if name.startswith(prefix)), None):
        name = name.removeprefix(prefix)
    yield name
    parts = name.split(".")
    for pair in SPELLINGS:
        for one, other in (pair, pair[::-1]):
            if one in parts:
                yield ".".join(other if part == one else part for part in parts)


def _read(path: Path) -> Any:
    # A damaged file makes the readers raise nearly anything, so all of it becomes one error that names the file.
    if path.suffix == ".npz":
        return read_npz(path)
    if path.suffix == ".safetensors":
        return read_export(path)  # one with weights as CSR, too
    if path.suffix == ".bin" and not _begins(path, TORCH):
        return read_llama2c(path)
    try:
        with warnings.catch_warnings(action="ignore"):  # it warns of pickle protocols and then reads them, or raises
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(
            f"{path}: cannot be read without running code from it ({_line(error)}); save a plain state dict, "
            "or safetensors with the suffix .safetensors"
        ) from error


def _begins(path: Path, marks: tuple[bytes, ...]) -> bool:
    with path.open("rb") as file:
        return file.read(2).startswith(marks)


def _is_csr(name: str, own: Mapping[str, Tensor]) -> bool:
    """A sparse module takes a checkpoint with another number of non-zeros."""
    layer, _, leaf = name.rpartition(".")
    return leaf in ("values", "indices") and f"{layer}.indptr".lstrip(".") in own


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:160]


def _first(names: list[str], count: int = 3) -> str:
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")
