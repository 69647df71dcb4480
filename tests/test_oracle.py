"""The oracle is what definition and autograd give in float64, for its own inputs and for every scaled trial."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sparsebench.oracle import Oracle, Trial, load_oracle, make_oracle
from sparsebench.problem import Problem

CONV: dict[str, Any] = {"op": "conv2d", "height": 7, "width": 6, "batch": 3}
PROBLEMS = [
    Problem(op="linear", out_features=17, in_features=23, batch=5, sparsity=0.7, bias=True),
    Problem(op="linear", out_features=9, in_features=4, batch=1, sparsity=0.5, dtype="float64"),
    Problem(**CONV, out_features=8, in_features=6, kernel_size=(3, 2), padding=(1, 0), stride=(2, 1), bias=True),
    Problem(**CONV, out_features=8, in_features=4, kernel_size=(3, 3), padding=(2, 2), dilation=(2, 2), groups=2),
]
TRIALS: list[dict[str, Any]] = [{}, {"other_values": True}, {"scale_x": -0.5, "scale_grad": 4.0}]


def by_autograd(problem: Problem, dense: Tensor, trial: Trial) -> tuple[Tensor, Tensor, Tensor]:
    x, w = trial.x.double().requires_grad_(), dense.double().requires_grad_()
    bias = None if trial.bias is None else trial.bias.double()
    if problem.op == "linear":
        output = torch.nn.functional.linear(x, w, bias)
    else:
        p = problem
        output = torch.nn.functional.conv2d(x, w, bias, p.stride, p.padding, p.dilation, p.groups)
    output.backward(trial.grad_output.double())
    assert x.grad is not None
    assert w.grad is not None
    return output.detach(), x.grad, w.grad


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: p.describe())
@pytest.mark.parametrize("scales", TRIALS, ids=["own", "other values", "other inputs"])
def test_references_are_those_of_autograd(problem: Problem, scales: dict[str, Any]) -> None:
    oracle = make_oracle(problem)
    trial = oracle.trial(**scales)
    weight = oracle.weight.with_values(trial.values)
    output, grad_input, grad_weight = by_autograd(problem, weight.to_dense(), trial)
    torch.testing.assert_close(trial.forward.value, output, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(trial.grad_input.value, grad_input, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(trial.grad_values.value, weight.gather(grad_weight), rtol=1e-12, atol=1e-12)
    for reference in (trial.forward, trial.grad_input, trial.grad_values):
        assert reference.value.dtype == torch.float64
        assert bool((reference.bound >= 0).all())


def test_a_scaled_trial_is_exact_in_the_problems_dtype() -> None:
    oracle = make_oracle(PROBLEMS[0])
    trial = oracle.trial(other_values=True)
    assert torch.equal((trial.values / oracle.weight.values).abs().log2() % 1, torch.zeros(oracle.weight.nnz))
    assert trial.values.dtype == trial.x.dtype == torch.float32


def test_the_second_values_differ_where_it_matters() -> None:
    oracle = make_oracle(PROBLEMS[0])
    assert float((oracle.other_values != oracle.weight.values).double().mean()) > 0.6
    other = oracle.trial(other_values=True).forward.value
    assert float(torch.linalg.vector_norm(other - oracle.forward.value)) > 0.5 * float(oracle.forward.value.norm())


def bounds_by_definition(oracle: Oracle) -> tuple[Tensor, Tensor, Tensor]:
    """sqrt(K)·(|W|·|x|) of a linear problem, K counted by hand."""
    w, x, g = (t.abs().double() for t in (oracle.weight.to_dense(), oracle.x, oracle.grad_output))
    mask, bias = oracle.weight.mask().double(), torch.zeros(w.shape[0]) if oracle.bias is None else oracle.bias.abs()
    rows = mask.sum(1) + (oracle.bias is not None)
    return (
        (x @ w.T + bias) * rows.sqrt(),
        (g @ w) * mask.sum(0).sqrt(),
        oracle.weight.gather(g.T @ x) * x.shape[0] ** 0.5,
    )


@pytest.mark.parametrize("problem", PROBLEMS[:2], ids=lambda p: p.describe())
def test_bounds_are_those_of_the_contract(problem: Problem) -> None:
    oracle = make_oracle(problem)
    wanted = bounds_by_definition(oracle)
    for reference, bound in zip((oracle.forward, oracle.grad_input, oracle.grad_values), wanted, strict=True):
        torch.testing.assert_close(reference.bound, bound.float(), rtol=1e-5, atol=1e-7)


def test_bounds_of_conv2d_count_the_channels_non_zeros() -> None:
    problem = PROBLEMS[3]
    oracle = make_oracle(problem)
    mask = oracle.weight.mask()  # [8, 2, 3, 3]; the first half of the rows reads channels 0 and 1
    counts = torch.cat([mask[:4].sum((0, 2, 3)), mask[4:].sum((0, 2, 3))]).double()
    reach = torch.nn.functional.conv_transpose2d(
        oracle.grad_output.abs(), oracle.weight.to_dense().abs(), None, 1, 2, 0, 2, 2
    )
    torch.testing.assert_close(
        oracle.grad_input.bound, reach * counts.sqrt().float().view(1, -1, 1, 1), rtol=1e-4, atol=1e-6
    )


def test_it_is_saved_whole_and_mapped_privately(tmp_path: Path) -> None:
    path = tmp_path / "oracle.pt"
    for problem in PROBLEMS:
        oracle = make_oracle(problem, seed=3)
        oracle.save(path)
        loaded = load_oracle(path)
        assert loaded.problem == problem
        assert loaded.weight_digest == oracle.weight_digest
        mine, theirs = oracle.trial(other_values=True), loaded.trial(other_values=True)
        for name in ("forward", "grad_input", "grad_values"):
            assert all(map(torch.equal, getattr(mine, name), getattr(theirs, name)))
        loaded.x.zero_()
        assert torch.equal(load_oracle(path).x, oracle.x)
