"""The way out of torch.compile's graph; imported only while compiling: torch's compiler takes seconds to import."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from sparsebench.nn.layer import SparseLayer

REASON = "sparsebench runs sparse kernels outside the graph: torch.compile cannot trace them"
_SAYS = "reason" in inspect.signature(torch.compiler.disable).parameters  # from torch 2.7 on


def _product(layer: SparseLayer, x: Tensor) -> Tensor:
    return layer.product(x)


product_outside_graph = torch.compiler.disable(_product, **({"reason": REASON} if _SAYS else {}))
