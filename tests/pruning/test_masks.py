"""Masks keep exact counts whatever the scores; the checks catch the faults of published code."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sparsebench.errors import BudgetError, UsageError
from sparsebench.pruning.masks import apply_masks, kept, mask_factors, nm_mask, prunable, sparsity_of, top_k_mask


def by_threshold(score: Tensor, keep: int) -> Tensor:
    """The widespread fault: of n weights k - 1 are kept, and ties fall together."""
    if keep == 0:
        return torch.zeros_like(score, dtype=torch.bool)
    return score > score.reshape(-1).topk(keep).values[-1]


def check_counts(make_mask: Callable[[Tensor, int], Tensor], sizes: range) -> None:
    generator = torch.Generator().manual_seed(0)
    for n in sizes:
        scores = (
            torch.randint(0, 4, (n,), generator=generator).float(),
            torch.ones(n),
            torch.randn(n, generator=generator),
        )
        for sparsity in (0.0, 1 / n, 0.5, 0.9, 1 - 1 / n, 1.0):
            keep = kept(n, sparsity)
            for score in scores:
                mask = make_mask(score, keep)
                assert int(mask.sum()) == keep, (n, sparsity)
                expected = sorted(range(n), key=lambda i: (-float(score[i]), i))[:keep]
                assert mask.nonzero().squeeze(1).tolist() == sorted(expected)


def test_exact_counts_with_ties_by_index() -> None:
    check_counts(top_k_mask, range(1, 201))


def test_the_check_catches_a_threshold() -> None:
    with pytest.raises(AssertionError):
        check_counts(by_threshold, range(4, 12))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.bool])
def test_any_dtype_and_strides(dtype: torch.dtype) -> None:
    score = torch.tensor([[3, 0, 1], [0, 2, 4]]).to(dtype)
    assert top_k_mask(score, 2).tolist() == top_k_mask(score.t().contiguous().t(), 2).tolist()
    assert int(top_k_mask(score, 3).sum()) == 3


def test_infinite_scores_have_an_order_and_nan_has_none() -> None:
    assert top_k_mask(torch.tensor([-float("inf"), 0.0, float("inf")]), 1).tolist() == [False, False, True]
    with pytest.raises(UsageError, match="NaN"):
        top_k_mask(torch.tensor([1.0, float("nan")]), 1)
    for keep in (-1, 3):
        with pytest.raises(UsageError, match="of 2 weights"):
            top_k_mask(torch.ones(2), keep)


def model() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


def test_prunable_is_the_weights_of_linear_and_conv2d() -> None:
    assert list(prunable(model())) == ["0.weight", "3.weight"]
    assert list(prunable(model(), exclude=["0"])) == list(prunable(model(), exclude=["0.weight"])) == ["3.weight"]
    assert list(prunable(nn.Linear(2, 2))) == ["weight"]
    shared = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    shared[1].weight = shared[0].weight
    assert list(prunable(shared)) == ["0.weight"]


@pytest.mark.parametrize("name", ["1", "fc", "0.bias"])
def test_an_excluded_name_must_be_a_layer(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name}.*no Linear or Conv2d"):
        prunable(model(), exclude=[name])


def test_apply_masks_changes_only_what_is_dropped() -> None:
    net = model()
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    masks = {name: top_k_mask(p.detach().abs(), 4) for name, p in prunable(net).items()}
    apply_masks(net, masks)
    for name, parameter in net.named_parameters():
        assert torch.equal(parameter, before[name] * masks.get(name, torch.ones(())))
    assert sparsity_of(masks) == pytest.approx(1 - 8 / 42)
    assert sparsity_of({}) == 0


def test_factors_keep_the_layout_and_skip_full_masks() -> None:
    net = nn.Conv2d(4, 8, 3).to(memory_format=torch.channels_last)
    mask = torch.ones_like(net.weight, dtype=torch.bool)
    assert mask_factors(net, {"weight": mask}) == []
    mask[0, 0] = False
    ((parameter, keep),) = mask_factors(net, {"weight": mask})
    assert parameter is net.weight
    assert keep.stride() == net.weight.stride()
    assert not keep.requires_grad
    assert torch.equal(keep.bool(), mask)


def test_a_mask_that_fits_nothing_is_named() -> None:
    with pytest.raises(UsageError, match=r"'3.weigth'.*did you mean '3.weight'"):
        apply_masks(model(), {"3.weigth": torch.ones(3, 8, dtype=torch.bool)})
    with pytest.raises(UsageError, match="bool"):
        apply_masks(model(), {"3.weight": torch.ones(8, 3, dtype=torch.bool)})


def check_groups(
    make_mask: Callable[[Tensor, int, int], Tensor], shape: tuple[int, ...], keep: int, group: int
) -> None:
    """Every group of input channels keeps its highest scores, of equal ones the first."""
    score = torch.randint(0, 4, shape, generator=torch.Generator().manual_seed(0)).float()
    mask = make_mask(score, keep, group)
    assert mask.shape == score.shape
    assert mask.dtype == torch.bool
    rows = score.movedim(1, -1).reshape(-1, group).tolist()
    for row, chosen in zip(rows, mask.movedim(1, -1).reshape(-1, group).tolist(), strict=True):
        expected = sorted(range(group), key=lambda i: (-row[i], i))[:keep]
        assert [i for i in range(group) if chosen[i]] == sorted(expected)


def across_positions(score: Tensor, keep: int, group: int) -> Tensor:
    """The widespread fault: groups of a flattened filter, which straddle the positions of its window."""
    flat = score.reshape(-1, group)
    order = flat.argsort(dim=1, descending=True, stable=True)[:, :keep]
    return torch.zeros(flat.shape, dtype=torch.bool).scatter_(1, order, True).reshape(score.shape)


@pytest.mark.parametrize(("keep", "group"), [(2, 4), (1, 4), (3, 4), (4, 8), (1, 2), (4, 4)])
@pytest.mark.parametrize("shape", [(6, 16), (5, 8, 3, 3), (3, 8, 1, 1), (2, 8, 2, 5)])
def test_every_group_keeps_exactly_its_number(shape: tuple[int, ...], keep: int, group: int) -> None:
    check_groups(nm_mask, shape, keep, group)
    score = torch.rand(shape)
    mask = nm_mask(score, keep, group)
    assert torch.equal(nm_mask(score * mask, keep, group), mask)  # of what is in groups already, it changes nothing


def test_the_check_catches_groups_over_positions_and_thresholds() -> None:
    check_groups(across_positions, (6, 16), 2, 4)  # right for linear layers alone
    with pytest.raises(AssertionError):
        check_groups(across_positions, (5, 8, 3, 3), 2, 4)
    with pytest.raises(AssertionError):
        check_groups(lambda score, keep, group: top_k_mask(score, score.numel() * keep // group), (6, 16), 2, 4)


def test_groups_that_cannot_be() -> None:
    for shape in [(8, 6), (8, 3, 4, 4), (8,)]:
        with pytest.raises(BudgetError, match="no whole groups of 4"):
            nm_mask(torch.ones(shape), 2, 4)
    for keep, group in [(0, 4), (5, 4)]:
        with pytest.raises(BudgetError, match=f"{keep}:{group} is no pattern"):
            nm_mask(torch.ones(8, 20), keep, group)
    with pytest.raises(UsageError, match="NaN"):
        nm_mask(torch.tensor([[1.0, float("nan")]]), 1, 2)


@settings(max_examples=60, deadline=None)
@given(
    score=st.lists(st.integers(-2, 2), min_size=1, max_size=40),
    keeps=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_masks_of_one_score_nest(score: list[int], keeps: tuple[float, float]) -> None:
    few, many = sorted(round(share * len(score)) for share in keeps)
    small, large = (top_k_mask(torch.tensor(score), keep) for keep in (few, many))
    assert bool((large | ~small).all())
