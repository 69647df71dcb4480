"""Models on disk as safetensors, with zeros or with masked weights as CSR; both are read back as a dense state dict."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from sparsebench.errors import CheckpointError, InvariantError
from sparsebench.weight import SparseWeight, from_csr

FORMAT = "sparsebench-csr-1"  # in the file's metadata, beside the dense shape of every weight that is CSR
PARTS = ("values", "indices", "indptr")


def write_dense(state: Mapping[str, Tensor], path: Path) -> None:
    """All tensors as they are, zeros too."""
    _save({name: tensor.detach().contiguous().clone() for name, tensor in state.items()}, path, {})


def write_csr(state: Mapping[str, Tensor], masks: Mapping[str, Tensor], path: Path) -> None:
    """Masked weights as values, indices and indptr, in the order of `SparseWeight`; all else as it is."""
    tensors: dict[str, Tensor] = {}
    shapes: dict[str, str] = {"format": FORMAT}
    for name, tensor in state.items():
        if name not in masks or bool(masks[name].all()):
            tensors[name] = tensor.detach().contiguous().clone()
            continue
        weight = SparseWeight.from_dense(tensor.detach().contiguous(), masks[name])
        parts = (weight.values, weight.indices, weight.indptr)
        tensors |= {f"{name}.{part}": each.clone() for part, each in zip(PARTS, parts, strict=True)}
        shapes[name] = ",".join(map(str, tensor.shape))
    _save(tensors, path, shapes)


def read_export(path: Path) -> dict[str, Tensor]:
    """The dense state dict of a file that one of the two wrote; raises `CheckpointError` naming what is odd."""
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no mapping
    except Exception as error:  # a damaged file makes the reader raise nearly anything
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise CheckpointError(f"{path}: is not a safetensors file ({line})") from error
    if metadata.get("format") != FORMAT:
        return tensors
    for name, text in metadata.items():
        if name == "format":
            continue
        try:
            values, indices, indptr = (tensors.pop(f"{name}.{part}") for part in PARTS)
            shape = tuple(int(size) for size in text.split(","))
            tensors[name] = from_csr(shape, indptr, indices, values).to_dense()
        except (KeyError, ValueError) as error:
            raise CheckpointError(f"{path}: {name} is no CSR weight of shape [{text}] ({error})") from error
    return tensors


def check_export(
    state: Mapping[str, Tensor], masks: Mapping[str, Tensor], folder: Path, where: str, stem: str = "model"
) -> None:
    """Write `state` both ways into `folder`, as STEM.safetensors and STEM-csr.safetensors, and read it back.

    Raises `InvariantError` "export" if anything differs.
    """
    missing = sorted(masks.keys() - state.keys())
    if missing:
        raise InvariantError("export", f"{where}: {missing[0]} is missing")
    dense, csr = folder / f"{stem}.safetensors", folder / f"{stem}-csr.safetensors"
    write_dense(state, dense)
    write_csr(state, masks, csr)
    for path in (dense, csr):
        again = read_export(path)
        if again.keys() != state.keys():
            odd = sorted(again.keys() ^ state.keys())[0]
            raise InvariantError("export", f"{where}: {path.name} and the model differ in {odd}")
        for name, tensor in state.items():
            if not torch.equal(again[name], tensor):
                raise InvariantError("export", f"{where}: {name} is read back from {path.name} with other values")
    for name, mask in masks.items():
        if int(read_export(dense)[name][~mask].count_nonzero()):
            raise InvariantError("export", f"{where}: {dense.name} holds values of {name} that are masked")


def _save(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    from safetensors.torch import save_file

    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    save_file(tensors, part, metadata or None)
    part.replace(path)
