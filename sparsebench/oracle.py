"""The oracle of a problem: its weight and inputs with float64 results, and how far off a right kernel may be.

One set of results serves for any number of trials. With rows r and columns c of signed powers of two, the
weight r·W·c applied to a·x/c gives r·a times what W gives for x, to the last bit, and likewise for both
gradients. So a *trial* with other values, inputs and gradients costs a multiplication, not another product.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from sparsebench.patterns import make_bias, make_grad_output, make_input, make_weight
from sparsebench.problem import Problem
from sparsebench.weight import SparseWeight


class Reference(NamedTuple):
    """`value` in float64 and `bound` = sqrt(K)·(|W|·|x|) in float32; a right result is within 8·eps·bound."""

    value: Tensor
    bound: Tensor


@dataclass(frozen=True, eq=False)
class Trial:
    """What to give a kernel, and what it must return: `grad_values` [nnz] in CSR order."""

    values: Tensor
    bias: Tensor | None
    x: Tensor
    grad_output: Tensor
    forward: Reference
    grad_input: Reference
    grad_values: Reference


@dataclass(frozen=True, eq=False)
class Oracle:
    """`weight`, `bias`, `x` and `grad_output` in the problem's dtype, with the results; see `Trial`.

    `rows` [out_features] and `columns` [in_features] are the scales of the second set of values.
    """

    problem: Problem
    weight: SparseWeight
    bias: Tensor | None
    x: Tensor
    grad_output: Tensor
    forward: Reference
    grad_input: Reference
    grad_values: Reference
    rows: Tensor
    columns: Tensor
    weight_digest: str

    def trial(self, *, other_values: bool = False, scale_x: float = 1.0, scale_grad: float = 1.0) -> Trial:
        """The oracle's own inputs; scaled by powers of two; or with a second set of values."""
        scales: tuple[Tensor | float, ...] = self._other_scales() if other_values else (1.0, 1.0, 1.0, 1.0)
        rows, out_rows, x_columns, per_value = scales
        return Trial(
            values=self.weight.values * per_value,
            bias=None if self.bias is None else self.bias * (rows * scale_x),
            x=self.x * (scale_x / x_columns),
            grad_output=self.grad_output * (scale_grad / out_rows),
            forward=_scaled(self.forward, out_rows * scale_x),
            grad_input=_scaled(self.grad_input, x_columns * scale_grad),
            grad_values=_scaled(self.grad_values, scale_x * scale_grad / per_value),
        )

    def _other_scales(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What the second set of values scales: outputs; the same along grad_output; inputs along x; each non-zero."""
        per_value = self.rows[self.weight.row_ids()] * self.columns[self.input_channels()]
        return self.rows, _along(self.rows, self.grad_output), _along(self.columns, self.x), per_value

    @property
    def other_values(self) -> Tensor:
        """The second set of values [nnz]."""
        return self.trial(other_values=True).values

    @property
    def other_x(self) -> Tensor:
        """x with other content, as `verify.recheck` feeds it."""
        return self.x * -0.5

    def input_channels(self) -> Tensor:
        """The input feature or channel that each non-zero multiplies, int64 [nnz]."""
        return input_channels(self.problem, self.weight)

    def save(self, path: str | Path) -> None:
        """Write to one file that `load_oracle` maps into memory."""
        state = {name: getattr(self, name) for name in ("bias", "x", "grad_output", "rows", "columns", "weight_digest")}
        state |= {name: tuple(getattr(self, name)) for name in ("forward", "grad_input", "grad_values")}
        state["problem"] = asdict(self.problem)
        state["weight"] = (self.weight.shape, self.weight.indptr, self.weight.indices, self.weight.values)
        torch.save(state, path)


def load_oracle(path: str | Path) -> Oracle:
    """An oracle written by `Oracle.save`, mapped into private memory that workers share until they write."""
    state = torch.load(path, mmap=True, weights_only=True)
    state["problem"] = Problem(**state["problem"])
    state["weight"] = SparseWeight(*state["weight"])
    return Oracle(**state | {name: Reference(*state[name]) for name in ("forward", "grad_input", "grad_values")})


def make_oracle(problem: Problem, seed: int = 0) -> Oracle:
    """The oracle of the problem's seeded weight and inputs."""
    return oracle_of(
        problem,
        make_weight(problem, seed),
        make_input(problem, seed),
        make_grad_output(problem, seed),
        make_bias(problem, seed),
    )


@torch.no_grad()
def oracle_of(
    problem: Problem, weight: SparseWeight, x: Tensor, grad_output: Tensor, bias: Tensor | None = None
) -> Oracle:
    """The oracle of given tensors: x of the problem's input shape, grad_output of its output shape, any strides."""
    exact = _passes(problem, weight.to_dense().double(), x.double(), grad_output.double())
    reach = _passes(problem, weight.to_dense().abs().float(), x.abs().float(), grad_output.abs().float())
    per_row = weight.indptr.diff().double()
    channels = input_channels(problem, weight)
    per_channel = torch.bincount(channels, minlength=problem.in_features).double()
    forward, forward_bound = exact[0], reach[0]
    if bias is not None:
        forward = forward + _along(bias.double(), forward)
        forward_bound = forward_bound + _along(bias.abs().float(), forward)
        per_row = per_row + 1
    generator = torch.Generator().manual_seed(weight.nnz)
    return Oracle(
        problem=problem,
        weight=weight,
        bias=bias,
        x=x,
        grad_output=grad_output,
        forward=Reference(forward, forward_bound * _along(per_row.sqrt().float(), forward)),
        grad_input=Reference(exact[1], reach[1] * _along(per_channel.sqrt().float(), x)),
        grad_values=Reference(weight.gather(exact[2]), weight.gather(reach[2]) * problem.positions**0.5),
        rows=_powers(problem.out_features, x.dtype, generator),
        columns=_powers(problem.in_features, x.dtype, generator),
        weight_digest=weight_digest(weight),
    )


def input_channels(problem: Problem, weight: SparseWeight) -> Tensor:
    """The input feature or channel that each non-zero multiplies, int64 [nnz]."""
    per_group = problem.in_features // problem.groups
    group = weight.row_ids() // (problem.out_features // problem.groups)
    return group * per_group + weight.indices.long() // (problem.kernel_size[0] * problem.kernel_size[1])


def weight_digest(weight: SparseWeight) -> str:
    """Tells whether anybody changed the weight's memory."""
    digest = hashlib.blake2b(digest_size=16)
    for part in (weight.indptr, weight.indices, weight.values):
        digest.update(part.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _passes(problem: Problem, weight: Tensor, x: Tensor, grad_output: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(output, grad_input, dense gradient of the weight) in the dtype of the arguments."""
    if problem.op == "linear":
        return x @ weight.T, grad_output @ weight, grad_output.T @ x
    stride, padding, dilation = list(problem.stride), list(problem.padding), list(problem.dilation)
    output = torch.nn.functional.conv2d(x, weight, None, stride, padding, dilation, problem.groups)
    grad_input, grad_weight, _ = torch.ops.aten.convolution_backward(
        grad_output,
        x,
        weight,
        None,
        stride,
        padding,
        dilation,
        False,
        [0, 0],
        problem.groups,
        [True, True, False],
    )
    return output, grad_input, grad_weight


def _along(vector: Tensor, like: Tensor) -> Tensor:
    """A vector over features or channels, shaped to broadcast over dimension 1 of `like`."""
    return vector.reshape(1, -1, *[1] * (like.dim() - 2))


def _powers(count: int, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """Signed powers of two, none of them 1: 0.5, 2, -0.5, -1 or -2."""
    choices = torch.tensor([0.5, 2.0, -0.5, -1.0, -2.0], dtype=dtype)
    return choices[torch.randint(len(choices), (count,), generator=generator)]


def _scaled(reference: Reference, scale: Tensor | float) -> Reference:
    if isinstance(scale, float) and scale == 1.0:
        return reference
    value = reference.value * scale
    return Reference(value, reference.bound * (scale.abs().float() if isinstance(scale, Tensor) else abs(scale)))
