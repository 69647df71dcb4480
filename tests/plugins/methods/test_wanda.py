"""Wanda's masks by NumPy, its two symmetries, exact counts by rows, and the inputs that it sees; each with a twin."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sparsebench.builtin.methods._wanda import Wanda
from sparsebench.errors import BudgetError, InvariantError, UsageError
from sparsebench.plugin import NM, Update, input_norms, top_k_mask
from sparsebench.pruning.calibration import Calibration
from sparsebench.pruning.contract import Scope
from sparsebench.pruning.host import Host
from sparsebench.registry import load_registry
from sparsebench.testing.methods import Even

Make = Callable[[], Any]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def lone(weight: Tensor) -> nn.Sequential:
    """A model of one linear layer."""
    model = nn.Sequential(nn.Linear(weight.shape[1], weight.shape[0]))
    with torch.no_grad():
        model[0].weight.copy_(weight)
    return model


def host_of(
    make: Make, model: nn.Module, x: Tensor, sparsity: float, scope: Scope = "layer", batch: int = 7, **options: Any
) -> Host:
    calibration = Calibration(x, torch.zeros(len(x), dtype=torch.long), count=len(x), batch=batch)
    spec = load_registry().methods["wanda"].spec
    return Host(
        model, make(), Even(scope), sparsity=sparsity, needs=spec.needs, name="wanda", calibration=calibration,
        parameters={**spec.parameters, **options}, strict=True,
    )  # fmt: skip


def pruned(make: Make, model: nn.Module, x: Tensor, sparsity: float, scope: Scope = "layer", **options: Any) -> Host:
    host = host_of(make, model, x, sparsity, scope, **options)
    host.begin()
    host.finish()
    return host


def by_rows(score: np.ndarray, keep: int) -> np.ndarray:
    """The `keep` highest of every row."""
    mask = np.zeros(score.shape, bool)
    np.put_along_axis(mask, np.argsort(-score, 1, kind="stable")[:, :keep], True, 1)
    return mask


def equal_norms_give_magnitude(make: Make) -> None:
    """Columns of the inputs all of norm 1: the largest weights of every row are kept, and no value changes."""
    weight, x = draw(12, 20), nn.functional.normalize(draw(30, 20, seed=1), dim=0)
    host = pruned(make, lone(weight), x, 0.4)
    assert np.array_equal(host.masks["0.weight"].numpy(), by_rows(weight.abs().numpy(), 12))
    assert torch.equal(host.state()["0.weight"], weight * host.masks["0.weight"])


def is_magnitude_times_norm(make: Make) -> None:
    """Each row by itself; layers whose scores are made by NumPy from what the layer got."""
    weight, x = draw(12, 20), draw(30, 20, seed=1) * torch.linspace(0.1, 5, 20)
    host = pruned(make, lone(weight), x, 0.4)
    score = weight.abs().numpy() * np.linalg.norm(x.numpy(), axis=0)
    assert np.array_equal(host.masks["0.weight"].numpy(), by_rows(score, 12))


def scaling_changes_nothing(make: Make) -> None:
    """Inputs by powers of two, weights by their inverses."""
    weight, x = draw(12, 20), draw(30, 20, seed=1)
    scale = 2.0 ** torch.arange(20).sub(10)
    for scope, sparsity in (("layer", 0.63), (NM(2, 4), 0.5)):
        plain = pruned(make, lone(weight), x, sparsity, scope)
        scaled = pruned(make, lone(weight / scale), x * scale, sparsity, scope)
        assert torch.equal(plain.masks["0.weight"], scaled.masks["0.weight"])


def sees_pruned_layers(make: Make) -> None:
    """The second layer's masks are those of inputs from the pruned first one, whichever was registered first."""

    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.second, self.first = nn.Linear(40, 6), nn.Linear(8, 40)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x).relu())

    model, x = Turned(), draw(50, 8)
    second = model.second.weight.detach().clone()
    host = pruned(make, model, x, 0.8)
    inner = model.first(x).relu().detach().numpy()  # pruned by now
    score = second.abs().numpy() * np.linalg.norm(inner, axis=0)
    assert np.array_equal(host.masks["second.weight"].numpy(), by_rows(score, 8))


def rows_are_even(make: Make) -> None:
    """Rows keep as many as each other or one more; those with one more are the ones whose next score is highest."""
    weight, x = draw(12, 20), draw(30, 20, seed=1)
    score = weight.abs().numpy() * np.linalg.norm(x.numpy(), axis=0)
    for keep in (1, 7, 12, 100, 119, 120, 121, 239):
        mask = pruned(make, lone(weight), x, 1 - keep / 240).masks["0.weight"].numpy()
        base, rest = divmod(keep, 12)
        following = np.sort(score, 1)[:, ::-1][:, base]
        more = np.isin(np.arange(12), np.argsort(-following)[:rest])
        assert np.array_equal(mask.sum(1), base + more)
        assert all(np.array_equal(row, by_rows(s[None], row.sum())[0]) for row, s in zip(mask, score, strict=True))


def convolutions_are_products(make: Make) -> None:
    """A convolution has the masks of the linear layer that it is, on its unfolded inputs."""
    for options, size in (({"padding": 1}, 72), ({"stride": 2}, 72), ({"groups": 2}, 36)):
        torch.manual_seed(0)
        model, x = nn.Sequential(nn.Conv2d(8, 12, 3, **options)), draw(6, 8, 7, 7)
        weight = model[0].weight.detach().clone()
        padding, stride = options.get("padding", 0), options.get("stride", 1)
        unfolded = nn.functional.unfold(x, 3, padding=padding, stride=stride)
        norms = unfolded.square().sum((0, 2)).sqrt().reshape(-1, size)
        scores = weight.abs().reshape(len(norms), -1, size) * norms[:, None]
        mask = pruned(make, model, x, 0.5).masks["0.weight"]
        assert np.array_equal(mask.reshape(12, size).numpy(), by_rows(scores.reshape(12, size).numpy(), size // 2))


def rows_are_a_choice(make: Make) -> None:
    """Without them the highest of the layer are kept, and rows keep what they have of those."""
    weight, x = draw(12, 20), draw(30, 20, seed=1) * torch.linspace(0.1, 5, 20)
    score = (weight.abs().numpy() * np.linalg.norm(x.numpy(), axis=0)).ravel()
    for keep in (1, 97, 120):
        mask = pruned(make, lone(weight), x, 1 - keep / 240, rows=False).masks["0.weight"].numpy().ravel()
        assert set(np.flatnonzero(mask)) == set(np.argsort(-score)[:keep])


class AlwaysRows(Wanda):
    def compress(self, calibration: Any, ctx: Any) -> Iterator[Update]:
        ctx._host.parameters = {"rows": True}
        return super().compress(calibration, ctx)


class OverTheLayer(Wanda):
    @staticmethod
    def rows(score: Tensor, keep: int) -> Tensor:
        return top_k_mask(score, keep)


class RestToTheFirst(Wanda):
    @staticmethod
    def rows(score: Tensor, keep: int) -> Tensor:
        base, rest = divmod(keep, len(score))
        return torch.stack([top_k_mask(row, base + (i < rest)) for i, row in enumerate(score)])


class RoundsDown(Wanda):
    """As published: the share of pruned weights of a row is rounded down."""

    @staticmethod
    def rows(score: Tensor, keep: int) -> Tensor:
        drop = int(score.shape[1] * (1 - keep / score.numel()))
        return torch.stack([top_k_mask(row, score.shape[1] - drop) for row in score])


class NoInputs(Wanda):
    @staticmethod
    def score(weight: Tensor, norms: Tensor) -> Tensor:
        return weight.double().abs()


class Squares(Wanda):
    @staticmethod
    def score(weight: Tensor, norms: Tensor) -> Tensor:
        return Wanda.score(weight, norms.square())


class Places(Wanda):
    """The faults of a convolution: columns in another order."""

    @staticmethod
    def score(weight: Tensor, norms: Tensor) -> Tensor:
        return Wanda.score(weight, norms.flip(1) if weight.dim() == 4 else norms)


class AllAtOnce(Wanda):
    def compress(self, calibration: Any, ctx: Any) -> Iterator[Update]:
        return iter(list(super().compress(calibration, ctx)))


class AsRegistered(Wanda):
    def compress(self, calibration: Any, ctx: Any) -> Iterator[Update]:
        for name, weight in ctx.prunable.items():
            score = self.score(weight, input_norms(calibration, ctx.model, name))
            yield Update(masks={name: self.rows(score, ctx.budget(name))})


@pytest.mark.parametrize(
    ("oracle", "broken"),
    [
        (equal_norms_give_magnitude, OverTheLayer),
        (is_magnitude_times_norm, NoInputs),
        (is_magnitude_times_norm, Squares),
        (scaling_changes_nothing, NoInputs),
        (scaling_changes_nothing, Squares),
        (sees_pruned_layers, AllAtOnce),
        (sees_pruned_layers, AsRegistered),
        (rows_are_even, OverTheLayer),
        (rows_are_even, RestToTheFirst),
        (rows_are_even, RoundsDown),
        (convolutions_are_products, Places),
        (rows_are_a_choice, AlwaysRows),
    ],
    ids=lambda value: value.__name__,
)
def test_the_method_passes_and_its_twin_fails(
    oracle: Callable[..., None], broken: Any, own_budget: Callable[[Any], Any]
) -> None:
    oracle(Wanda)
    with pytest.raises(AssertionError):
        oracle(own_budget(broken))


def test_rows_that_round_down_miss_the_budget_and_the_host_says_so() -> None:
    with pytest.raises(InvariantError, match="'budget'"):
        rows_are_even(RoundsDown)


@pytest.mark.parametrize("groups", [1, 2])
def test_groups_run_along_input_channels(groups: int) -> None:
    model, x = nn.Sequential(nn.Conv2d(8, 12, 3, groups=groups)), draw(6, 8, 7, 7)
    weight = model[0].weight.detach().clone()
    norms = nn.functional.unfold(x, 3).square().sum((0, 2)).sqrt().reshape(groups, 1, 8 // groups, 3, 3)
    score = (weight.abs().unflatten(0, (groups, -1)) * norms).reshape(weight.shape).numpy()
    mask = pruned(Wanda, model, x, 0.5, NM(2, 4)).masks["0.weight"].numpy()
    for o, i, y, z in np.ndindex(12, 8 // groups // 4, 3, 3):
        at = slice(4 * i, 4 * i + 4)
        assert set(np.flatnonzero(mask[o, at, y, z])) == set(np.argsort(-score[o, at, y, z])[:2])


@pytest.mark.parametrize("batch", [1, 7, 30])
def test_how_examples_are_batched_changes_no_mask(batch: int) -> None:
    masks = [
        pruned(Wanda, lone(draw(12, 20)), draw(30, 20, seed=1), 0.7, batch=size).masks["0.weight"]
        for size in (batch, 11)
    ]
    assert torch.equal(*masks)


def test_what_is_pruned_already_stays_so() -> None:
    x = draw(30, 20, seed=1)
    host = host_of(Wanda, lone(draw(12, 20)), x, 0.6)
    host.begin()
    before = draw(12, 20, seed=2) > -0.3
    host.holding.enforce({"0.weight": before})
    host.finish()
    assert not bool((host.masks["0.weight"] & ~before).any())
    assert int(host.masks["0.weight"].sum()) == 96


def test_ties_keep_the_first() -> None:
    mask = pruned(Wanda, lone(torch.ones(3, 8)), torch.ones(4, 8), 1 - 10 / 24).masks["0.weight"]
    assert [row.nonzero().squeeze(1).tolist() for row in mask] == [[0, 1, 2, 3], [0, 1, 2], [0, 1, 2]]


def test_one_budget_for_the_model_is_refused_before_any_work() -> None:
    with pytest.raises(BudgetError, match=r"wanda: .* use the allocator uniform, erk or nm:K:G"):
        host_of(Wanda, lone(draw(12, 20)), draw(3, 20), 0.5, "model").begin()


def test_a_choice_that_is_none_is_refused_before_any_work() -> None:
    with pytest.raises(UsageError, match="wanda: rows = 1; use true or false"):
        host_of(Wanda, lone(draw(12, 20)), draw(3, 20), 0.5, rows=1).begin()
