"""Masks keep exact counts whatever the scores; the checks catch the faults of published code."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sparsebench.errors import UsageError
from sparsebench.pruning.masks import apply_masks, kept, mask_factors, prunable, sparsity_of, top_k_mask


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
    check_counts(top_k_mask, range(1, 201, 3))


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
