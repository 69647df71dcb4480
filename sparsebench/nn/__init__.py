"""Sparse layers for torch models, over any backend."""

from sparsebench.nn.choose import Choice, choose
from sparsebench.nn.conv2d import SparseConv2d
from sparsebench.nn.layer import SparseLayer
from sparsebench.nn.linear import SparseLinear
from sparsebench.nn.problem import problem_of
from sparsebench.nn.swap import densify, sparse_layers, sparsify

__all__ = [
    "Choice",
    "SparseConv2d",
    "SparseLayer",
    "SparseLinear",
    "choose",
    "densify",
    "problem_of",
    "sparse_layers",
    "sparsify",
]
