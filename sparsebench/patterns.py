"""The seeded weights, inputs and gradients that cases are made of, and what a problem's `pattern` means.

uniform      round((1 - sparsity)·n) weights, anywhere in the matrix
row-skewed   as many, but rows are drawn with log-normal (sigma 1) weights: some are long, some nearly empty
block:B      runs of B neighbouring columns (the last of a row may be shorter) are kept or pruned together
nm:K:G       K of every G neighbouring input channels are kept at each kernel position; `Problem` sees that they divide
file:NAME    the pattern of a DLMC file (`.smtx`), found by path or below $SPARSEBENCH_DATA/dlmc
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from sparsebench.errors import DatasetMissing, ProblemError
from sparsebench.problem import SPARSITY_TOLERANCE, Problem
from sparsebench.weight import SparseWeight, from_csr

_WEIGHT, _INPUT, _GRAD, _BIAS = range(4)  # one random stream for each, so that none is a copy of another


def make_weight(problem: Problem, seed: int = 0) -> SparseWeight:
    """A weight of the problem's shape, pattern and dtype; outputs of it are of order 1."""
    generator = _generator(seed, _WEIGHT)
    if problem.pattern.startswith("file:"):
        indptr, indices = _pattern_of_file(problem)
    else:
        pattern = SparseWeight.from_dense(_mask(problem, generator))
        indptr, indices = pattern.indptr, pattern.indices
    values = torch.randn(indices.numel(), generator=generator, dtype=torch.float64)
    values *= max(1.0, indices.numel() / problem.out_features) ** -0.5
    return from_csr(problem.weight_shape, indptr, indices, values.to(getattr(torch, problem.dtype)))


def make_input(problem: Problem, seed: int = 0) -> Tensor:
    """Finite normal x of `problem.input_shape`."""
    return _normal(problem, problem.input_shape, seed, _INPUT)


def make_grad_output(problem: Problem, seed: int = 0) -> Tensor:
    """Finite normal gradient of `problem.output_shape`."""
    return _normal(problem, problem.output_shape, seed, _GRAD)


def make_bias(problem: Problem, seed: int = 0) -> Tensor | None:
    """Normal bias [out_features] if the problem has one."""
    return _normal(problem, (problem.out_features,), seed, _BIAS) if problem.bias else None


def find_smtx(name: str) -> Path:
    """The file that `file:NAME.smtx` means; raises `DatasetMissing` with the way to get it."""
    if Path(name).is_file():
        return Path(name)
    folder = Path(os.environ.get("SPARSEBENCH_DATA", "")) / "dlmc"
    found = sorted(folder.rglob(name)) if "SPARSEBENCH_DATA" in os.environ and not Path(name).is_absolute() else []
    if len(found) == 1:
        return found[0]
    if found:
        raise ProblemError(f"file:{name} means {len(found)} files below {folder}; give more of its path")
    raise DatasetMissing(
        f"pattern file {name} is neither a path nor below $SPARSEBENCH_DATA/dlmc; unpack the Deep Learning "
        "Matrix Collection (dlmc.tar.gz of google-research/sgk) there"
    )


def read_smtx(path: Path, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """(indptr, indices), int32, of a DLMC file: a line 'rows, columns, nnz', one of row offsets, one of columns."""
    try:
        lines = path.read_text().splitlines()
        rows, columns, nnz = (int(word) for word in lines[0].split(","))
        indptr, indices = (_int64((*lines, "")[at]) for at in (1, 2))
    except (ValueError, IndexError, OverflowError, RuntimeError) as error:  # torch raises the last two for 2**63
        raise ProblemError(f"{path} is not an .smtx file ({error}); use one of the DLMC") from error
    if (rows, columns) != shape:
        raise ProblemError(
            f"{path} is {rows}x{columns}, the weight {shape[0]}x{shape[1]}; change out_features and in_features"
        )
    if indptr.numel() != rows + 1 or int(indptr[-1]) != nnz or indices.numel() != nnz:
        raise ProblemError(f"{path} promises {nnz} non-zeros in {rows} rows and holds {indices.numel()}")
    if int(indptr[0]) != 0 or bool((indptr.diff() < 0).any()):
        raise ProblemError(f"{path} has row offsets that do not ascend from 0; use a whole file of the DLMC")
    if nnz and not 0 <= int(indices.min()) <= int(indices.max()) < columns:
        raise ProblemError(f"{path} has an index outside its {columns} columns; use a whole file of the DLMC")
    row_ids = torch.repeat_interleave(torch.arange(rows), indptr.diff())
    flat = (row_ids * columns + indices).sort().values
    if bool((flat.diff() == 0).any()):
        raise ProblemError(f"{path} names an element twice; use a whole file of the DLMC")
    return indptr.to(torch.int32), (flat % columns).to(torch.int32)


def _pattern_of_file(problem: Problem) -> tuple[Tensor, Tensor]:
    """(indptr, indices) of the problem's file; its sparsity must be the one that the problem says."""
    path = find_smtx(problem.pattern[5:])
    indptr, indices = read_smtx(path, (problem.out_features, problem.columns))
    sparsity = 1 - indices.numel() / (problem.out_features * problem.columns)
    if abs(sparsity - problem.sparsity) > SPARSITY_TOLERANCE:
        raise ProblemError(f"sparsity must be {sparsity:.4g} for {path}, not {problem.sparsity:g}; change it")
    return indptr, indices


def _int64(line: str) -> Tensor:
    return torch.tensor([int(word) for word in line.split()], dtype=torch.int64)


def _generator(seed: int, stream: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed * 4 + stream)


def _normal(problem: Problem, shape: tuple[int, ...], seed: int, stream: int) -> Tensor:
    return torch.randn(shape, generator=_generator(seed, stream), dtype=getattr(torch, problem.dtype))


def _mask(problem: Problem, generator: torch.Generator) -> Tensor:
    """The kept weights of a generated pattern, bool of the weight's shape."""
    kind, _, numbers = problem.pattern.partition(":")
    if kind == "nm":
        keep, group = (int(number) for number in numbers.split(":"))
        return _nm_mask(problem, keep, group, generator)
    rows, width = problem.out_features, int(numbers) if kind == "block" else 1
    keys = torch.rand((rows, -(-problem.columns // width)), generator=generator).log_()
    if kind == "row-skewed":
        keys /= torch.randn((rows, 1), generator=generator).exp()  # Efraimidis & Spirakis 2006: weighted, exact count
    kept = torch.zeros(keys.shape, dtype=torch.bool)
    kept.view(-1)[keys.view(-1).topk(round((1 - problem.sparsity) * keys.numel()), sorted=False).indices] = True
    return kept.repeat_interleave(width, 1)[:, : problem.columns].reshape(problem.weight_shape)


def _nm_mask(problem: Problem, keep: int, group: int, generator: torch.Generator) -> Tensor:
    keys = torch.rand(problem.weight_shape, generator=generator)
    ranks = keys.unflatten(1, (-1, group)).argsort(2, descending=True).argsort(2)
    return (ranks < keep).flatten(1, 2)
