"""The canonical CSR: what dense tensors become, what is refused, and that explicit zeros are kept."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsebench.errors import ProblemError
from sparsebench.weight import SparseWeight, from_csr

DENSE = torch.tensor([[0.0, 2.0, 0.0, 3.0], [0.0, 0.0, 0.0, 0.0], [5.0, 0.0, 7.0, 0.0]])


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 9), columns=st.integers(1, 9), seed=st.integers(0, 99), density=st.floats(0, 1))
def test_dense_and_back(rows: int, columns: int, seed: int, density: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand((rows, columns), generator=generator) < density
    dense = torch.randn((rows, columns), generator=generator) * mask
    weight = SparseWeight.from_dense(dense, mask)
    assert torch.equal(weight.to_dense(), dense)
    assert torch.equal(weight.mask(), mask)
    assert torch.equal(weight.gather(dense), weight.values)
    assert weight.indptr.tolist() == [0, *mask.sum(1).cumsum(0).tolist()]
    assert weight.indices.tolist() == mask.nonzero()[:, 1].tolist()


def test_columns_of_conv2d_run_over_channel_then_row_then_column() -> None:
    dense = torch.zeros(2, 3, 2, 4)
    dense[1, 2, 1, 3] = 1.0
    weight = SparseWeight.from_dense(dense)
    assert weight.indices.tolist() == [(2 * 2 + 1) * 4 + 3]
    assert (weight.rows, weight.columns, weight.nnz) == (2, 24, 1)
    assert weight.row_ids().tolist() == [1]
    assert torch.equal(weight.to_dense(), dense)


def test_the_pattern_counts_not_the_values() -> None:
    mask = torch.ones(3, 4, dtype=torch.bool)
    weight = SparseWeight.from_dense(DENSE, mask)
    assert weight.nnz == 12
    assert weight.with_values(torch.zeros(12)).mask().all()


def test_it_is_a_snapshot() -> None:
    dense = DENSE.clone().requires_grad_()
    weight = SparseWeight.from_dense(dense)
    assert not weight.values.requires_grad
    with torch.no_grad():
        dense.zero_()
    assert weight.values.tolist() == [2.0, 3.0, 5.0, 7.0]
    values = torch.ones(4)
    other = weight.with_values(values)
    values.zero_()
    assert other.values.tolist() == [1.0] * 4
    assert weight.indices.dtype == weight.indptr.dtype == torch.int32


def test_an_empty_weight_is_a_weight() -> None:
    weight = SparseWeight.from_dense(torch.zeros(3, 4))
    assert weight.nnz == 0
    assert torch.equal(weight.to_dense(), torch.zeros(3, 4))
    assert weight.indptr.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("mask", [torch.ones(3, 4), torch.ones(4, 3, dtype=torch.bool)])
def test_a_mask_is_bool_and_of_the_shape(mask: torch.Tensor) -> None:
    with pytest.raises(ProblemError, match="mask is"):
        SparseWeight.from_dense(DENSE, mask)


def test_other_values_are_as_many() -> None:
    with pytest.raises(ProblemError, match="4 non-zeros"):
        SparseWeight.from_dense(DENSE).with_values(torch.ones(3))


@pytest.mark.parametrize(
    ("indptr", "indices", "values", "reason"),
    [
        ([0, 2, 2], [1, 3, 0, 2], 4, "indptr does not describe 3 rows"),
        ([1, 2, 2, 4], [1, 3, 0, 2], 4, "indptr does not describe"),
        ([0, 2, 2, 3], [1, 3, 0, 2], 4, "indptr does not describe"),
        ([0, 3, 2, 4], [1, 3, 0, 2], 4, "indptr must not decrease"),
        ([0, 2, 2, 4], [1, 3, 0, 2], 3, "one value for each"),
        ([0, 2, 2, 4], [1, 4, 0, 2], 4, "outside the 4 columns"),
        ([0, 2, 2, 4], [1, -1, 0, 2], 4, "outside the 4 columns"),
        ([0, 2, 2, 4], [3, 1, 0, 2], 4, "ascend"),
        ([0, 2, 2, 4], [1, 1, 0, 2], 4, "duplicates"),
    ],
)
def test_what_is_not_canonical_is_refused(indptr: list[int], indices: list[int], values: int, reason: str) -> None:
    with pytest.raises(ProblemError, match=reason):
        from_csr((3, 4), torch.tensor(indptr), torch.tensor(indices), torch.ones(values))


def test_canonical_csr_is_taken() -> None:
    weight = from_csr(
        (3, 4), torch.tensor([0, 2, 2, 4]), torch.tensor([1, 3, 0, 2]), torch.tensor([2.0, 3.0, 5.0, 7.0])
    )
    assert torch.equal(weight.to_dense(), DENSE)
