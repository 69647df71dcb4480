"""SparseGPT against least squares, magnitude and Wanda, with exact counts; each with a twin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sparsebench.builtin.methods import _sparsegpt
from sparsebench.builtin.methods._sparsegpt import Columns, SparseGPT
from sparsebench.builtin.methods._wanda import Wanda
from sparsebench.plugin import NM
from sparsebench.pruning.calibration import Calibration
from sparsebench.pruning.contract import Scope
from sparsebench.pruning.host import Host
from sparsebench.registry import load_registry
from sparsebench.testing.methods import Even

Make = Callable[[], Any]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def related(samples: int, size: int) -> Tensor:
    """Inputs that are mixtures of fewer causes, and a little noise."""
    return draw(samples, size // 2) @ draw(size // 2, size, seed=1) + 0.3 * draw(samples, size, seed=2)


def lone(weight: Tensor, **options: Any) -> nn.Sequential:
    """A model of one layer with this weight."""
    out, inside, *window = weight.shape
    groups = options.get("groups", 1)
    layer = nn.Conv2d(inside * groups, out, tuple(window), **options) if window else nn.Linear(inside, out)
    with torch.no_grad():
        layer.weight.copy_(weight)
    return nn.Sequential(layer)


def host_of(
    make: Make, model: nn.Module, x: Tensor, sparsity: float, scope: Scope = "layer", batch: int = 16, **options: Any
) -> Host:
    calibration = Calibration(x, torch.zeros(len(x), dtype=torch.long), count=len(x), batch=batch)
    spec = load_registry().methods["sparsegpt"].spec
    return Host(
        model, make(), Even(scope), sparsity=sparsity, needs=spec.needs, name="sparsegpt", calibration=calibration,
        parameters={**spec.parameters, **options}, strict=True,
    )  # fmt: skip


def pruned(make: Make, weight: Tensor, x: Tensor, sparsity: float, scope: Scope = "layer", **options: Any) -> Host:
    """One layer, after its pruning."""
    layer = {key: options.pop(key) for key in ("groups", "padding", "stride") if key in options}
    host = host_of(make, lone(weight, **layer), x, sparsity, scope, **options)
    host.begin()
    host.finish()
    return host


def best_of_groups(score: Tensor, rule: NM) -> Tensor:
    """N:M along the input channels, group by group in Python."""
    made = torch.zeros(score.shape, dtype=torch.bool)
    for at in np.ndindex(score.shape[0], score.shape[1] // rule.group, *score.shape[2:]):
        group = [(at[0], at[1] * rule.group + i, *at[2:]) for i in range(rule.group)]
        for place in sorted(group, key=lambda where: -float(score[where]))[: rule.keep]:
            made[place] = True
    return made


def plain_inputs_give_magnitude(make: Make) -> None:
    """Inputs that are alike and have nothing to do with each other: the largest of each group, values as they were."""
    for rule, weight in ((NM(2, 4), draw(6, 16)), (NM(4, 8), draw(6, 16)), (NM(1, 4), draw(5, 8))):
        for damp in (0.0, 0.01, 1.0):
            host = pruned(make, weight, 3 * torch.eye(weight.shape[1]), 1 - rule.keep / rule.group, rule, damp=damp)
            expected = best_of_groups(weight.abs(), rule)
            assert torch.equal(host.masks["0.weight"], expected)
            assert torch.equal(host.state()["0.weight"], weight * expected)


def groups_of_a_convolution_are_channels(make: Make) -> None:
    """Every place of the window has its own groups, in grouped convolutions too."""
    for groups in (1, 2):
        weight = draw(4, 8, 3, 2)
        x = torch.zeros(48 * groups, 8 * groups, 3, 2)
        x.view(48 * groups, -1)[:] = torch.eye(48 * groups)  # one output position, one input at a time
        host = pruned(make, weight, x, 0.5, NM(2, 4), groups=groups)
        assert torch.equal(host.masks["0.weight"], best_of_groups(weight.abs(), NM(2, 4)))


def unrelated_inputs_give_wanda(make: Make) -> None:
    """Inputs of different sizes that have nothing to do with each other: Wanda's groups, values as they were."""
    weight, x = draw(6, 16), torch.diag(torch.linspace(0.2, 4, 16))
    host = pruned(make, weight, x, 0.5, NM(2, 4), damp=0.0)
    wanda = pruned(Wanda, weight, x, 0.5, NM(2, 4), rows=True)
    assert torch.equal(host.masks["0.weight"], wanda.masks["0.weight"])
    assert torch.equal(host.state()["0.weight"], wanda.state()["0.weight"])


def one_block_competes_over_the_layer(make: Make) -> None:
    """Unrelated inputs and one block: the highest |w| times norm of the layer."""
    weight, sizes = draw(6, 16), torch.linspace(0.2, 4, 16)
    score = (weight.abs() * sizes).numpy().ravel()
    for keep in (1, 31, 48, 95):
        mask = pruned(make, weight, torch.diag(sizes), 1 - keep / 96, damp=0.0).masks["0.weight"].numpy().ravel()
        assert set(np.flatnonzero(mask)) == set(np.argsort(-score)[:keep])


def errors_are_between(make: Make) -> None:
    """The output's error is that of least squares on the same mask at best, and well below that of the mask alone."""
    for weight, x, options in (
        (draw(8, 24), related(100, 24), {}),
        (draw(8, 24), related(100, 24), {"scope": NM(2, 4)}),
        (draw(8, 24), related(100, 24), {"block": 5}),
        (draw(8, 8, 3, 3), nn.functional.interpolate(draw(8, 8, 4, 4), size=8, mode="bilinear"), {"padding": 1}),
        (draw(8, 4, 3, 3), nn.functional.interpolate(draw(8, 8, 4, 4), size=8, mode="bilinear"), {"groups": 2}),
    ):
        host = pruned(make, weight, x, 0.5, **{"damp": 1e-4, **options})
        values, mask = host.state()["0.weight"], host.masks["0.weight"]
        assert bool((values[~mask] == 0).all())
        groups = options.get("groups", 1)
        if weight.dim() == 4:
            seen = nn.functional.unfold(x, 3, padding=options.get("padding", 0))
            inputs = seen.unflatten(1, (groups, -1)).permute(1, 0, 3, 2).flatten(1, 2).double().numpy()
        else:
            inputs = x[None].double().numpy()
        shape = (groups, 8 // groups, -1)
        w, v, m = (each.reshape(shape).double().numpy() for each in (weight, values, mask))
        best = np.zeros_like(w)
        for g, row in np.ndindex(*w.shape[:2]):
            kept = m[g, row] > 0
            best[g, row, kept] = np.linalg.lstsq(inputs[g][:, kept], inputs[g] @ w[g, row], rcond=None)[0]
        least, found, alone = (np.square(inputs @ (w - u).swapaxes(1, 2)).sum() for u in (best, v, w * m))
        assert least <= found * (1 + 1e-9)
        assert found < 0.75 * alone


def counts_are_exact(make: Make) -> None:
    """From one weight to all but one, with blocks that do not divide the columns; and every weight the same."""
    for weight in (draw(5, 13), torch.ones(5, 13)):
        for keep in (1, 32, 64):
            for block in (4, 128):
                host = pruned(make, weight, related(60, 13), 1 - keep / 65, block=block)
                assert int(host.masks["0.weight"].sum()) == keep


def unreached_columns_go_first(make: Make) -> None:
    """Large weights that nothing reaches are pruned before any other; those that the budget keeps stay as they are."""
    weight, x = draw(6, 12), related(50, 12)
    weight[:, 4:7] = 100 * draw(6, 3, seed=5)
    x[:, 4:7] = 0
    mask = pruned(make, weight, x, 0.5).masks["0.weight"]
    assert not bool(mask[:, 4:7].any())
    host = pruned(make, weight, x, 0.125)  # 9 of 72, and 18 are not reached
    mask, values = host.masks["0.weight"], host.state()["0.weight"]
    assert int(mask[:, 4:7].sum()) == 9
    assert torch.equal(values, weight * mask)


def pruned_weights_stay_so(make: Make) -> None:
    """A mask that is in force already is a part of the new one, in blocks that it leaves uneven."""
    before = draw(8, 24, seed=3) > torch.linspace(-2, 1, 24)
    for block in (5, 128):
        host = host_of(make, lone(draw(8, 24)), related(100, 24), 0.6, block=block)
        host.begin()
        host.holding.enforce({"0.weight": before})
        host.finish()
        mask = host.masks["0.weight"]
        assert not bool((mask & ~before).any())
        assert int(mask.sum()) == round(0.4 * 192)


def with_columns(**changes: Any) -> Make:
    """The method with another choice of the sweep."""
    made = type("Broken", (Columns,), changes)

    class Uses(SparseGPT):
        def _layer(self, *args: Any) -> Any:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(_sparsegpt, "Columns", made)
                return super()._layer(*args)

    Uses.__name__ = next(iter(changes), "Uses")
    return Uses


class InOrderOfTheWeight(SparseGPT):
    """As published: groups of a convolution are of columns side by side."""

    @staticmethod
    def order(weight: Tensor, rule: NM | None) -> Tensor:
        return SparseGPT.order(weight, None)


class NoAnswer(SparseGPT):
    """Survivors stay as they were."""

    def _layer(self, name: str, raw: Tensor, ctx: Any) -> Any:
        return super()._layer(name, raw, ctx)._replace(weights=None)


def _wrong_score(self: Any, j: int, rest: Tensor) -> None:
    self._diagonal = self._diagonal.sqrt() if j == 0 else self._diagonal
    Columns._choose(self, j, rest)


def _smallest(self: Any, j: int, rest: Tensor) -> None:
    Columns._choose(self, j, 1 / rest)


def _by_rows(self: Any, j: int, rest: Tensor) -> None:
    score = (rest / self._diagonal).square()[0]
    self.mask[0] = Wanda.rows(score, self._shares[0])


def _by_threshold(self: Any, j: int, rest: Tensor) -> None:
    """As published: what is not above the value at the place of the count is pruned."""
    here = slice(j, j + self.block)
    score = (rest[..., : here.stop - j] / self._diagonal[..., here]).square()
    drop = score.numel() - self._shares[j // self.block]
    self.mask[..., here] = score > score.flatten().sort().values[min(drop, score.numel() - 1)]


def _blind(self: Any, j: int, rest: Tensor) -> None:
    self.reached = torch.ones_like(self.reached)
    Columns._choose(self, j, rest)


def _revives(self: Any, j: int, rest: Tensor) -> None:
    self.alive = torch.ones_like(self.alive)
    Columns._choose(self, j, rest)


@pytest.mark.parametrize(
    ("oracle", "broken"),
    [
        (plain_inputs_give_magnitude, with_columns(_choose=_smallest)),
        (groups_of_a_convolution_are_channels, InOrderOfTheWeight),
        (unrelated_inputs_give_wanda, with_columns(_choose=_wrong_score)),
        (one_block_competes_over_the_layer, with_columns(_choose=_by_rows)),
        (one_block_competes_over_the_layer, with_columns(_choose=_wrong_score)),
        (errors_are_between, NoAnswer),
        (counts_are_exact, with_columns(_choose=_by_threshold)),
        (unreached_columns_go_first, with_columns(_choose=_blind)),
        (pruned_weights_stay_so, with_columns(_choose=_revives)),
    ],
    ids=lambda value: value.__name__,
)
def test_the_method_passes_and_its_twin_fails(
    oracle: Callable[[Make], None], broken: Make, own_budget: Callable[[Any], Make]
) -> None:
    oracle(SparseGPT)
    with pytest.raises(AssertionError):
        oracle(own_budget(broken))


@pytest.mark.parametrize("scope", ["layer", NM(2, 4)])
def test_how_examples_are_batched_changes_no_mask(scope: Scope) -> None:
    hosts = [pruned(SparseGPT, draw(8, 24), related(50, 24), 0.5, scope, batch=batch) for batch in (7, 50)]
    for host in hosts[1:]:
        assert torch.equal(host.masks["0.weight"], hosts[0].masks["0.weight"])
        torch.testing.assert_close(host.state()["0.weight"], hosts[0].state()["0.weight"])


def test_a_budget_of_everything_changes_nothing() -> None:
    host = pruned(SparseGPT, draw(8, 24), related(50, 24), 0.0)
    assert host.changes == 0
    assert torch.equal(host.state()["0.weight"], draw(8, 24))


def test_the_second_layer_sees_the_first_one_pruned() -> None:
    """In a model whose first layer was pruned before, it comes out alike; behind the dense one it does not."""

    def model() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 6))

    both = host_of(SparseGPT, model(), related(60, 12), 0.5)
    both.begin()
    both.finish()
    apart, dense = model(), model()
    with torch.no_grad():
        apart[0].weight.copy_(both.state()["0.weight"])
    made = []
    for each in (apart, dense):
        host = host_of(SparseGPT, each, related(60, 12), 0.5)
        host.begin()
        (update,) = [u for u in host.method.compress(host.calibration, host.ctx) if "2.weight" in u.masks]
        made.append(update.weights["2.weight"])
    assert not torch.equal(both.state()["2.weight"], made[1])
    torch.testing.assert_close(both.state()["2.weight"], made[0])
    assert both.notes == []
