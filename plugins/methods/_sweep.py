"""The sweep that SparseGPT and GPTQ share: columns change one by one, and the later ones make up for it.

Frantar et al., "GPTQ", ICLR 2023, section 3 and algorithm 1: the best answer of the columns that are still free to a
change of column j is a multiple of row j of the upper Cholesky factor of the inverse Hessian, for all rows of the
weight at once. Columns of later blocks are brought up to date when a block ends.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# (j, what columns j and later are by now [groups, rows, columns - j]) -> what column j becomes [groups, rows].
Choose = Callable[[int, Tensor], Tensor]


def sweep(weight: Tensor, factor: Tensor, block: int, choose: Choose) -> Tensor:
    """The weight [groups, rows, columns] after its columns were chosen from first to last.

    `factor` is `inverse_factor` of the damped Hessian [groups, columns, columns]. What `choose` is shown is up to date
    to the end of j's block, and at the first column of a block to the last column.
    """
    now, width = weight.clone(), weight.shape[-1]
    for start in range(0, width, block):
        end = min(start + block, width)
        errors = torch.empty_like(now[:, :, start:end])
        for j in range(start, end):
            chosen = choose(j, now[:, :, j:])
            error = (now[:, :, j] - chosen) / factor[:, j, j, None]
            now[:, :, j + 1 : end] -= error[:, :, None] * factor[:, None, j, j + 1 : end]
            now[:, :, j] = chosen
            errors[:, :, j - start] = error
        now[:, :, end:] -= errors @ factor[:, start:end, end:]
    return now
