"""State dicts in NumPy's .npz: an array for each parameter, under its name, and no code.

A sparse weight may be kept as SciPy's four parts of CSR instead, LAYER.data, LAYER.indices, LAYER.indptr and
LAYER.shape; it is read as the dense LAYER.weight. Where `shape` has more than two sizes, as of a convolution, columns
count through all of them but the first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sparsebench.errors import CheckpointError

CSR = ("data", "indices", "indptr", "shape")
LARGEST = 1 << 31  # weights of one layer: a shape that asks for more is damage


def read_npz(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, sparse ones dense; raises `CheckpointError` naming the file and the first odd name."""
    arrays = _arrays(path)
    layers = [name.removesuffix(".indptr") for name in arrays if name.endswith(".indptr")]
    # A sparse module's own state dict has `values` for `data`: its parts are tensors like any others.
    sparse = {layer: _name(layer) for layer in layers if f"{layer}.data" in arrays}
    names = [*arrays, *sparse.values()]
    twice = next((name for name in sparse.values() if names.count(name) > 1), None)
    if twice:
        raise CheckpointError(f"{path}: has {twice} twice, once as CSR; keep one of them")
    parts = {f"{layer}.{part}" for layer in sparse for part in CSR}
    state = {name: _tensor(array) for name, array in arrays.items() if name not in parts}
    return state | {name: _dense(path, layer, arrays) for layer, name in sparse.items()}


def _name(layer: str) -> str:
    return layer if layer.endswith(".weight") else f"{layer}.weight"


def _arrays(path: Path) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    name = "the file"
    try:
        with np.load(path, allow_pickle=False) as file:
            for name in file.files:
                arrays[name] = file[name]
    except Exception as error:  # a damaged archive makes zipfile, zlib and numpy raise nearly anything
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise CheckpointError(f"{path}: {name} cannot be read as plain arrays of a .npz ({reason})") from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
            kind = getattr(array, "dtype", type(array).__name__)
            raise CheckpointError(f"{path}: {name} is {kind}, not numbers; save the state dict alone")
    return arrays


def _tensor(array: np.ndarray) -> Tensor:
    # Torch takes neither foreign byte order nor negative strides.
    return torch.from_numpy(np.asarray(array, dtype=array.dtype.newbyteorder("="), order="C"))


def _dense(path: Path, layer: str, arrays: Mapping[str, np.ndarray]) -> Tensor:
    absent = next((part for part in CSR if f"{layer}.{part}" not in arrays), None)
    if absent:
        raise CheckpointError(f"{path}: does not have {layer}.{absent}; CSR is {', '.join(CSR)}")
    data, *others = (arrays[f"{layer}.{part}"] for part in CSR)
    for part, array in zip(CSR, (data, *others), strict=True):
        kinds = "f" if part == "data" else "iu"
        if array.ndim != 1 or array.dtype.kind not in kinds:
            raise CheckpointError(f"{path}: {layer}.{part} is {array.dtype} {list(array.shape)}, not a list of "
                                  f"{'floats' if part == 'data' else 'integers'}")  # fmt: skip
    indices, indptr, sizes = (array.astype(np.int64) for array in others)
    shape = [int(size) for size in sizes]
    if len(shape) < 2 or min(shape) < 1 or math.prod(shape) > LARGEST:
        raise CheckpointError(f"{path}: {layer}.shape is {shape}, which no layer's weight has")
    places = _places(path, layer, indices, indptr, shape, len(data))
    dense = np.zeros(math.prod(shape), dtype=data.dtype)
    dense[places] = data
    return _tensor(dense.reshape(shape))


def _places(path: Path, layer: str, indices: np.ndarray, indptr: np.ndarray, shape: list[int], nnz: int) -> np.ndarray:
    """Where each of the values stands in the flat dense weight, after checking that the parts are of one matrix."""
    rows, columns = shape[0], math.prod(shape[1:])
    counts = np.diff(indptr)
    if len(indptr) != rows + 1 or indptr[0] != 0 or indptr[-1] != nnz or counts.min() < 0:
        raise CheckpointError(f"{path}: {layer}.indptr does not divide {nnz} values among {rows} rows")
    if len(indices) != nnz or (nnz and not 0 <= indices.min() <= indices.max() < columns):
        raise CheckpointError(f"{path}: {layer}.indices are not {nnz} columns below {columns}")
    places = np.repeat(np.arange(rows), counts) * columns + indices
    if len(np.unique(places)) != nnz:
        raise CheckpointError(f"{path}: {layer}.indices name a column of a row twice")
    return places
