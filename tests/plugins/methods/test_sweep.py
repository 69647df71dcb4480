"""The sweep of SparseGPT and GPTQ against a new dense inverse for every column, and its twins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sparsebench.builtin.methods._sweep import sweep
from sparsebench.plugin import inverse_factor


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def answers_are_best(make: Callable[..., Tensor]) -> None:
    """Each column changes, and those to its right change as the dense inverse of what is left says, whatever the block.

    Hassibi & Stork 1993, equation 5, with a new inverse for every column.
    """
    weight = draw(2, 3, 9).double()
    x = (draw(2, 40, 5, seed=1) @ draw(5, 9, seed=2) + 0.3 * draw(2, 40, 9, seed=3)).double()
    hessian = (x.mT @ x).numpy()
    expected = weight.numpy().copy()
    for j in range(9):
        new = np.round(expected[:, :, j])
        inverse = np.linalg.inv(hessian[:, j:, j:])
        error = (expected[:, :, j] - new) / inverse[:, 0, 0, None]
        expected[:, :, j:] -= error[..., None] * inverse[:, None, 0]
    for block in (1, 2, 4, 9, 100):
        made = make(weight, inverse_factor(x.mT @ x), block, lambda _, rest: rest[..., 0].round())
        np.testing.assert_allclose(made.numpy(), expected, atol=1e-9)


def within_blocks(weight: Tensor, factor: Tensor, block: int, choose: Any) -> Tensor:
    """The fault: later blocks do not hear of it."""
    parts = [slice(at, at + block) for at in range(0, weight.shape[-1], block)]
    return torch.cat([sweep(weight[..., p], factor[:, p, p], block, choose) for p in parts], -1)


def by_inverse(weight: Tensor, factor: Tensor, block: int, choose: Any) -> Tensor:
    """The fault: rows of the whole inverse, as if no column were done with."""
    return sweep(weight, factor.mT @ factor, block, choose)


@pytest.mark.parametrize("broken", [within_blocks, by_inverse])
def test_the_sweep_is_the_answer_of_dense_inverses(broken: Callable[..., Tensor]) -> None:
    answers_are_best(sweep)
    with pytest.raises(AssertionError):
        answers_are_best(broken)
