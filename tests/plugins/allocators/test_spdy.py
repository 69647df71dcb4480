"""SPDY as hosts use it: the promise of time kept, exact counts, the way to the profile, what the method leaves."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn

from sparsebench.builtin.allocators._spdy import SPDY
from sparsebench.builtin.methods._gmp import GMP
from sparsebench.builtin.methods._magnitude import Magnitude
from sparsebench.errors import BudgetError, UsageError
from sparsebench.plugin import Update
from sparsebench.pruning.calibration import Calibration
from sparsebench.pruning.host import Host
from sparsebench.pruning.latency import LATENCY_LEVELS, LatencyTable
from sparsebench.pruning.target import Speedup
from sparsebench.registry import load_registry


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(8, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 30), nn.ReLU(), nn.Dropout(0.5),
        nn.Linear(30, 24), nn.ReLU(), nn.Linear(24, 3),
    )  # fmt: skip


def examples() -> Calibration:
    inputs = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    return Calibration(inputs, inputs[:, :3].argmax(1), count=32, batch=16)


def host_of(method: Any = None, allocator: SPDY | None = None, model: Any = None, **more: Any) -> Host:
    more = {"sparsity": 0.0 if "speedup" in more else 0.7, "calibration": examples(), "strict": True, **more}
    return Host(model or net(), method or Magnitude(), allocator or SPDY(inits=4, patience=3), **more)


MIDDLE = ("3.weight", "6.weight")
EVERY = ("0.weight", *MIDDLE, "8.weight")


def table() -> LatencyTable:
    """Dense 4 ms, of which 1 ms is no layer; a layer takes as long as it has weights, but for an overhead."""
    times = (1.0, *(0.1 + 1.1 * (1 - s) for s in LATENCY_LEVELS[1:]))
    layers = {name: times if name in MIDDLE else tuple([0.5] * len(times)) for name in EVERY}
    return LatencyTable(LATENCY_LEVELS, layers, 1.0, 4.0)


@pytest.mark.parametrize("times", [1.05, 1.3, 1.8])
def test_the_found_profile_is_fast_enough_and_the_ends_stay_dense(times: float) -> None:
    speed = Speedup(times, table())
    host = host_of(speedup=speed)
    host.begin()
    host.finish()
    shares = {name: 1 - int(mask.sum()) / mask.numel() for name, mask in host.masks.items()}
    assert speed.table.speedup(shares) >= times
    assert shares["0.weight"] == shares["8.weight"] == 0
    assert host.sparsity == pytest.approx(host.sparsity_now)
    assert host.ctx.speedup is speed


def test_a_speedup_that_cannot_be_says_the_best_that_can() -> None:
    host = host_of(speedup=Speedup(9.0, table()))
    best = 4 / (1 + 2 * 0.5 + 2 * (0.1 + 1.1 * 0.01))
    with pytest.raises(BudgetError, match=rf"a speedup of 9 cannot be reached: spdy comes to {best:.2f}"):
        host.begin()


def test_a_sparsity_is_met_by_the_weights_that_are_kept_in_all() -> None:
    host = host_of(sparsity=0.6)
    host.begin()
    host.finish()
    total_size = sum(mask.numel() for mask in host.masks.values())
    assert sum(int(mask.sum()) for mask in host.masks.values()) == pytest.approx(0.4 * total_size, abs=2)
    assert bool(host.masks["0.weight"].all())


def test_a_sparsity_beyond_the_levels_is_said_to_be() -> None:
    with pytest.raises(BudgetError, match=r"0\.95 is out of reach"):
        host_of(sparsity=0.95).begin()


def goes_there_in_proportion(allocator: SPDY) -> None:
    """On the way every layer has its share of the sparsity, and at the end exactly the profile that was found."""
    host = host_of(GMP(), allocator, speedup=Speedup(1.5, table()), parameters=gmp_parameters())
    host.begin(4, 5)
    final = allocator.allocate(host.ctx.prunable, host.sparsity, host.ctx)
    assert host.ctx.budgets().layers == {n: round((1 - s) * host.masks[n].numel()) for n, s in final.items()}
    half = allocator.allocate(host.ctx.prunable, host.sparsity / 2, host.ctx)
    assert half == {name: pytest.approx(share / 2) for name, share in final.items()}
    assert len({round(share, 6) for share in final.values()}) > 1


def gmp_parameters() -> dict[str, Any]:
    return dict(load_registry().methods["gmp"].spec.parameters)


class Jumps(SPDY):
    def allocate(self, layers: Any, target: float, ctx: Any) -> dict[str, float]:
        return super().allocate(layers, ctx.sparsity, ctx)


def test_on_the_way_the_profile_is_scaled_and_a_twin_that_jumps_is_seen() -> None:
    goes_there_in_proportion(SPDY(inits=2, patience=1))
    with pytest.raises(AssertionError):
        goes_there_in_proportion(Jumps(inits=2, patience=1))


def test_a_late_budget_is_that_of_the_trained_model() -> None:
    """Until `compress` nothing is to be pruned; then the weights of that moment count."""
    model = net()
    host = host_of(model=model, late=True)
    host.begin()
    assert host.ctx.sparsity == 0
    assert host.ctx.budgets().total == sum(weight.numel() for weight in host.ctx.prunable.values())
    with torch.no_grad():
        model[3].weight.mul_(100)
    host.finish()
    with torch.no_grad():
        fresh = net()
        fresh[3].weight.mul_(100)
    trained = host_of(model=fresh)
    trained.begin()
    trained.finish()
    assert all(torch.equal(mask, trained.masks[name]) for name, mask in host.masks.items())
    assert host.sparsity == 0.7


def test_the_same_seed_gives_the_same_profile_and_the_global_random_state_stays() -> None:
    before = torch.get_rng_state()
    made = []
    for seed in (3, 3):
        host = host_of(seed=seed)
        state = torch.get_rng_state()
        host.begin()
        assert torch.equal(state, torch.get_rng_state())
        made.append(dict(host.ctx.budgets().layers))
    torch.set_rng_state(before)
    assert made[0] == made[1]


class Halves:
    """Its levels are half of the weights; it says for what it was asked."""

    asked: Sequence[float] = ()

    def levels(self, calibration: Any, ctx: Any, sparsities: Sequence[float]) -> dict[str, list[torch.Tensor]]:
        Halves.asked = tuple(sparsities)
        return {name: [weight / 2 for _ in sparsities] for name, weight in ctx.prunable.items()}

    def compress(self, calibration: Any, ctx: Any) -> Update:
        return Update(masks=ctx.select({name: weight.abs() for name, weight in ctx.prunable.items()}))


class Doubles:
    """Keeps the smallest weights, twice as large."""

    def compress(self, calibration: Any, ctx: Any) -> Update:
        masks = ctx.select({name: -weight.abs() for name, weight in ctx.prunable.items()})
        return Update(masks=masks, weights={n: 2 * w * masks[n] for n, w in ctx.prunable.items()})


def test_the_database_is_what_the_method_leaves() -> None:
    for method in (Halves(), Doubles(), GMP()):
        host = host_of(method, parameters=gmp_parameters())
        weight = host.ctx.prunable["3.weight"]
        made = host.ctx.database((0.0, 0.5))["3.weight"]
        if isinstance(method, Halves):
            assert Halves.asked == (0.0, 0.5)
            assert torch.equal(made[0], weight / 2)
            continue
        small = weight.abs() <= weight.abs().flatten().kthvalue(weight.numel() // 2).values
        assert torch.equal(made[0], weight)
        assert torch.equal(made[1], 2 * weight * small if isinstance(method, Doubles) else weight * ~small)


def is_the_lower_of_both_statistics(loss: Any) -> None:
    """With the norms' statistics as they are or with those of each batch; nothing of the model moves."""
    for shift in (0.0, -9.0):  # statistics that fit, and that do not
        host = host_of()
        host.model[1].running_mean.fill_(shift)
        state, random = copy.deepcopy(host.model.state_dict()), torch.get_rng_state()
        expected: list[float] = []
        for fresh in (False, True):
            twin = copy.deepcopy(host.model).eval()
            twin[3].weight.data.mul_(-3)
            twin[1].train(fresh)
            batches = [nn.functional.cross_entropy(twin(x), y).item() for x, y in examples().batches()]
            expected.append(sum(batches) / len(batches))
        assert abs(expected[0] - expected[1]) > 1e-4
        weights = {"3.weight": -3 * host.ctx.prunable["3.weight"]}
        assert loss(host.ctx.stitched(32), weights) == pytest.approx(min(expected))
        assert all(module.training for module in host.model.modules())
        assert all(torch.equal(tensor, state[name]) for name, tensor in host.model.state_dict().items())
        assert torch.equal(random, torch.get_rng_state())


@torch.no_grad()
def with_old_statistics(scorer: Any, weights: Any) -> float:
    """As published code scores, which makes no statistics anew."""
    scorer.model.eval()
    made: float = scorer._mean(weights)
    scorer.model.train()
    return made


@torch.no_grad()
def in_training_mode(scorer: Any, weights: Any) -> float:
    """Draws dropout."""
    made: float = scorer._mean(weights)
    return made


def test_the_loss_of_a_stitched_model_is_that_of_a_copy_and_its_twins_are_not() -> None:
    is_the_lower_of_both_statistics(lambda scorer, weights: scorer.loss(weights))
    for broken in (with_old_statistics, in_training_mode):
        with pytest.raises(AssertionError):
            is_the_lower_of_both_statistics(broken)


def test_without_examples_it_says_what_it_needs() -> None:
    with pytest.raises(UsageError, match="needs examples"):
        host_of(calibration=None).begin()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("spdy@inits=-1", "inits = -1; write at least 0"),
        ("spdy@images=0", "images = 0; write at least 1"),
        ("spdy@patience=x", "write a whole number"),
        ("spdy@tries=3", "'tries' is not a parameter"),
    ],
)
def test_parameters_that_cannot_be_are_named(name: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        load_registry().create("allocators", name)


def test_parameters_reach_it() -> None:
    made = load_registry().create("allocators", "spdy@inits=3,ends=true")
    assert (made.inits, made.ends, made.images) == (3, True, 256)


def test_with_the_ends_every_layer_can_be_pruned_and_without_there_must_be_another() -> None:
    small = nn.Sequential(nn.Linear(8, 20), nn.ReLU(), nn.Linear(20, 3))
    with pytest.raises(BudgetError, match="spdy@ends=true"):
        host_of(model=small, sparsity=0.5).begin()
    host = host_of(allocator=SPDY(inits=2, patience=1, ends=True), model=small, sparsity=0.5)
    host.begin()
    assert host.ctx.budgets().layers["0.weight"] < 160
