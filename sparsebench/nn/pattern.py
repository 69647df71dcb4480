"""Changes of a sparse layer's pattern: what moves where, and how a Parameter takes another length."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sparsebench.errors import ProblemError
from sparsebench.weight import SparseWeight, from_csr

if TYPE_CHECKING:
    from sparsebench.nn.layer import SparseLayer


def remapping(old: SparseWeight, new: SparseWeight) -> Callable[[Tensor], Tensor]:
    """A function from tensors [old nnz] to [new nnz]: kept weights keep their element, new ones get 0."""
    before, after = old.flat_ids(), new.flat_ids()
    place = torch.searchsorted(before, after)
    kept = torch.zeros_like(after, dtype=torch.bool)
    inside = place < before.numel()
    kept[inside] = before[place[inside]] == after[inside]
    source = place[kept]

    def remap(tensor: Tensor) -> Tensor:
        result = tensor.new_zeros(after.numel())
        result[kept] = tensor.detach()[source]
        return result

    return remap


def resized(parameter: nn.Parameter, content: Tensor) -> None:
    """Give a Parameter another content of any length; the gradient is dropped, and graphs that saved it raise."""
    parameter.grad = None
    # An accumulator that an old graph keeps alive remembers the length; torch renews it only when the dtype changes.
    parameter.data = torch.empty(0, dtype=torch.float64 if content.dtype is not torch.float64 else torch.float32)
    parameter.data = torch.empty_like(content)
    with torch.no_grad():
        parameter.copy_(content)  # in place: moves the version that autograd compares


def reload_pattern(layer: SparseLayer, state: dict[str, Any], prefix: str, errors: list[str]) -> bool:
    """Make room for a saved pattern before torch copies it in.

    A pattern that cannot be, or that does not fit the rest of the layer, becomes an error of the loading: then False.
    """
    values, indptr, indices = (
        state.get(prefix + name, getattr(layer, name)) for name in ("values", "indptr", "indices")
    )
    try:
        new = from_csr(layer.weight_shape, indptr, indices, values)
    except (ProblemError, RuntimeError, IndexError) as error:
        errors.append(f"{prefix}indptr, {prefix}indices: {error}")
        return False
    if torch.equal(new.indptr, layer.indptr) and torch.equal(new.indices, layer.indices):
        return True
    # New buffers: a kernel of an earlier forward may still read the old ones.
    layer.indptr, layer.indices = new.indptr.clone(), new.indices.clone()
    if new.values.shape != layer.values.shape:
        resized(layer.values, new.values.to(layer.values))
    return True
