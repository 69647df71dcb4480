"""Masks: which weights a model keeps, by exact counts."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from sparsebench.errors import BudgetError, UsageError, nearest


def kept(total: int, sparsity: float) -> int:
    """How many of `total` weights a sparsity keeps: round((1 - sparsity)·total)."""
    return round((1 - sparsity) * total)


def top_k_mask(score: Tensor, keep: int) -> Tensor:
    """A bool mask of `score`'s shape, True at exactly the `keep` highest scores; of equal ones, the first.

    A comparison with a threshold keeps too many or too few as soon as scores tie; this never does. Raises
    `UsageError` if `keep` is outside 0 … score.numel() or a score is NaN.
    """
    flat = score.detach().reshape(-1)
    if flat.dtype in (torch.float16, torch.bfloat16, torch.bool):
        flat = flat.float()
    if not 0 <= keep <= flat.numel():
        raise UsageError(f"cannot keep {keep} of {flat.numel()} weights")
    _check_order(flat)
    if keep == 0:
        return torch.zeros(score.shape, dtype=torch.bool)
    # NumPy's introselect: 3 ms for 300,000 scores where torch.kthvalue takes 34.
    place = flat.numel() - keep
    threshold = torch.from_numpy(np.partition(flat.numpy(), place)[place : place + 1])
    mask = flat > threshold
    ties = (flat == threshold).nonzero().squeeze(1)
    mask[ties[: keep - int(mask.sum())]] = True
    return mask.reshape(score.shape)


def nm_mask(score: Tensor, keep: int, group: int) -> Tensor:
    """A bool mask with exactly `keep` of every `group` consecutive input channels, by score; of equal ones the first.

    `score` is [out, in] or [out, in/groups, kh, kw]; in a convolution every position of the window has groups of its
    own. Raises `BudgetError` if the input channels do not divide, `UsageError` if a score is NaN.
    """
    if not 0 < keep <= group:
        raise BudgetError(f"{keep}:{group} is no pattern: keep at least 1 and at most {group} of every {group}")
    if score.dim() < 2 or score.shape[1] % group:
        raise BudgetError(f"{list(score.shape)} has no whole groups of {group} along its input channels")
    _check_order(score)
    by_group = score.detach().movedim(1, -1)
    order = by_group.reshape(-1, group).argsort(dim=1, descending=True, stable=True)
    mask = torch.zeros(order.shape, dtype=torch.bool).scatter_(1, order[:, :keep], True)
    return mask.reshape(by_group.shape).movedim(-1, 1).contiguous()


def _check_order(score: Tensor) -> None:
    if score.is_floating_point() and bool(score.isnan().any()):
        raise UsageError("a score is NaN, so no order of the weights exists")


def prunable(model: nn.Module, exclude: Collection[str] = ()) -> dict[str, nn.Parameter]:
    """The weights of all `Linear` and `Conv2d` layers by parameter name ("layer1.0.conv1.weight"), in order.

    Biases and norms are never prunable. `exclude` names layers ("fc") or weights ("fc.weight") to leave out; a
    name that is neither raises `UsageError`. A weight that several layers share appears once.
    """
    found: dict[str, nn.Parameter] = {}
    seen: set[int] = set()
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear | nn.Conv2d) or not isinstance(module.weight, nn.Parameter):
            continue
        if id(module.weight) not in seen:
            seen.add(id(module.weight))
            found[f"{name}.weight" if name else "weight"] = module.weight
    for name in exclude:
        chosen = name if name in found else f"{name}.weight"
        if chosen not in found:
            layers = [each.removesuffix(".weight") for each in found]
            raise UsageError(f"exclude = {name!r} is no Linear or Conv2d layer of this model{nearest(name, layers)}")
    return {name: p for name, p in found.items() if name not in exclude and name.removesuffix(".weight") not in exclude}


@torch.no_grad()
def apply_masks(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Set every weight that a mask drops to zero; masks are bool, by parameter name, of its shape."""
    for parameter, keep in mask_factors(model, masks):
        parameter.mul_(keep)


def mask_factors(model: nn.Module, masks: Mapping[str, Tensor]) -> list[tuple[nn.Parameter, Tensor]]:
    """(parameter, its mask as 1 and 0 in its own dtype and layout) for every mask that drops anything.

    Multiplying by numbers takes a tenth of the time of filling where a bool mask says so (44 us against 599 us for
    512x512 on one core), and a dense baseline pays for it at every step.
    """
    parameters = dict(model.named_parameters())
    for name, mask in masks.items():
        if name not in parameters:
            raise UsageError(f"a mask is for {name!r}, which is no parameter{nearest(name, parameters)}")
        if mask.dtype != torch.bool or mask.shape != parameters[name].shape:
            raise UsageError(f"the mask of {name} is {mask.dtype} {list(mask.shape)}; "
                             f"it must be bool {list(parameters[name].shape)}")  # fmt: skip
    return [
        (parameters[name], torch.empty_like(parameters[name], requires_grad=False).copy_(mask))
        for name, mask in masks.items()
        if not bool(mask.all())
    ]


def sparsity_of(masks: Mapping[str, Tensor]) -> float:
    """The share of weights that the masks drop, over all masks together; 0 for no masks."""
    total = sum(mask.numel() for mask in masks.values())
    return 1 - sum(int(mask.sum()) for mask in masks.values()) / total if total else 0.0
