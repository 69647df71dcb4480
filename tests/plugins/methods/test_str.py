"""STR: thresholds by decay or by steering, masks that say what is zero, and the model that is exported."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD

from sparsebench.builtin.methods import _str
from sparsebench.builtin.methods._str import STR, between
from sparsebench.errors import BudgetError, InvariantError, UsageError
from sparsebench.plugin import Event, Update
from sparsebench.pruning.export import check_export
from sparsebench.pruning.host import Host
from sparsebench.registry import load_registry
from sparsebench.training.data import Examples
from sparsebench.training.step import StepRunner

STEPS = 40


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(8, 20), nn.ReLU(), nn.Linear(20, 20, bias=False), nn.BatchNorm1d(20), nn.ReLU(), nn.Linear(20, 3)
    )


def batch(at: int) -> Examples:
    inputs = torch.randn(16, 8, generator=torch.Generator().manual_seed(at))
    return Examples(inputs, inputs[:, :3].argmax(1))


def host_of(
    make: Callable[[], Any],
    name: str = "str",
    sparsity: float = 0.8,
    on: str = "global",
    model: nn.Module | None = None,
) -> Host:
    registry = load_registry()
    entry, parameters = registry.find("methods", name)
    return Host(
        net() if model is None else model, make(), registry.create("allocators", on), sparsity=sparsity, name=name,
        needs=entry.spec.needs, parameters=parameters, strict=True,
    )  # fmt: skip


def run(
    host: Host, steps: int = STEPS, lr: float = 0.1, momentum: float = 0.9, look: Callable[[], None] = list
) -> Host:
    """A training without its end; `look` is called after every step."""
    torch.manual_seed(1)
    host.begin(1, steps)
    optimizer = SGD(host.model.parameters(), lr, momentum)
    host.attach(optimizer)
    step = StepRunner(host.model, optimizer, iter([batch(at) for at in range(steps)]), host)
    for _ in range(steps):
        step()
        look()
    return host


def zeros(host: Host) -> int:
    return sum(int((weight == 0).sum()) for weight in host.ctx.prunable.values())


def thresholds(host: Host) -> dict[str, float]:
    return {name: float(p.detach()) for name, p in host.model.named_parameters() if name.endswith(".s")}


# The oracles of the method


def decays_without_data(make: Callable[[], Any]) -> None:
    """s(t) = s0 (1 - lr decay)^t, at a constant rate and where the loss has no say."""
    host = run(host_of(make, "str@steer=false,start=-200,decay=0.1"), lr=0.05, momentum=0.0)
    assert len(thresholds(host)) == 3
    for s in thresholds(host).values():
        assert s == pytest.approx(-200 * (1 - 0.05 * 0.1) ** STEPS, rel=1e-5)


def follows_the_curve_and_lands(make: Callable[[], Any]) -> None:
    """A cubic rise over the share `end`, then the budget; exact at each update, to a weight of rounding."""
    trace: list[int] = []
    host = host_of(make, "str@end=0.5,updates=40")
    run(host, look=lambda: trace.append(zeros(host)))
    total = 8 * 20 + 20 * 20 + 20 * 3
    final = total - round(0.2 * total)
    expected = [final * (1 - (1 - min(1, step / 20)) ** 3) for step in range(1, STEPS + 1)]
    assert max(abs(a - b) for a, b in zip(trace, expected, strict=True)) <= 1.5
    host.finish()
    assert sum(int(mask.sum()) for mask in host.masks.values()) == total - final


def learns_where_to_prune(make: Callable[[], Any]) -> None:
    """The loss tells the layers' thresholds apart; what steers them moves all by the same."""
    host = run(host_of(make))
    assert max(thresholds(host).values()) - min(thresholds(host).values()) > 0.1


def masks_say_what_is_zero(make: Callable[[], Any]) -> None:
    host = run(host_of(make))
    host.finish()
    for name, weight in host.state().items():
        if name in host.masks:
            assert torch.equal(host.masks[name], weight != 0)
    assert host.sparsity_now == pytest.approx(0.8, abs=2e-3)


def exports_the_trained_model(make: Callable[[], Any]) -> None:
    """The same logits, bit for bit, from a plain model; and no masked value in the file."""
    host = run(host_of(make))
    host.finish()
    state, dense = host.export()["sparse"], net()
    dense.load_state_dict(state)
    host.model.eval()
    dense.eval()
    assert torch.equal(host.model(batch(99).inputs), dense(batch(99).inputs))


class DecaysTwice(STR):
    def setup(self, ctx: Any) -> None:
        super().setup(ctx)
        for function in self._functions.values():
            function.decay *= 2


class StopsEarly(STR):
    def on_event(self, event: Event, ctx: Any) -> None:
        if ctx.step < 0.4 * ctx.steps:
            super().on_event(event, ctx)


class Straight(STR):
    @staticmethod
    def pruned(ctx: Any) -> int:
        return round(min(1, 2 * ctx.step / ctx.steps) * STR.pruned(ctx))


class Frozen(STR):
    def setup(self, ctx: Any) -> None:
        super().setup(ctx)
        for function in self._functions.values():
            function.s.requires_grad_(False)


class ClaimsMore(STR):
    """Masks that keep some of what is 0; the host has nothing against it."""

    def compress(self, calibration: Any, ctx: Any) -> Update:
        masks = {name: (weight != 0) | (torch.arange(weight.shape[1]) == 0) for name, weight in ctx.prunable.items()}
        return Update(masks=masks, kept={name: int(mask.sum()) for name, mask in masks.items()})


class ByMagnitude(STR):
    """Masks of another rule, which the thresholds know nothing of."""

    def compress(self, calibration: Any, ctx: Any) -> Update:
        masks = {name: weight.abs() > weight.abs().median() for name, weight in ctx.prunable.items()}
        masks = {name: mask & (mask.cumsum(-1) > 1) for name, mask in masks.items()}
        return Update(masks=masks, kept={name: int(mask.sum()) for name, mask in masks.items()})


class SaysNothing(STR):
    compress = None  # type: ignore[assignment]


class ExportsOriginals(STR):
    def export(self, ctx: Any) -> dict[str, Any]:
        return {"sparse": {**ctx.state(), **{name: _str.original(ctx, name).clone() for name in ctx.reparametrised}}}


@pytest.mark.parametrize(
    ("oracle", "broken"),
    [
        (decays_without_data, DecaysTwice),
        (follows_the_curve_and_lands, StopsEarly),
        (follows_the_curve_and_lands, Straight),
        (learns_where_to_prune, Frozen),
        (masks_say_what_is_zero, ClaimsMore),
        (masks_say_what_is_zero, SaysNothing),
        (exports_the_trained_model, ExportsOriginals),
    ],
    ids=lambda value: value.__name__,
)
def test_the_method_passes_and_its_twin_fails(oracle: Callable[[Any], None], broken: Any) -> None:
    oracle(STR)
    with pytest.raises(AssertionError):
        oracle(broken)


# What else must hold


def test_masks_that_are_not_true_are_named() -> None:
    """The host looks at computed weights too."""
    host = run(host_of(ByMagnitude))
    with pytest.raises(InvariantError, match=r"masked weights of 0\.weight are not zero") as error:
        host.finish()
    assert error.value.invariant == "weights"


def test_its_export_is_written_and_read_back(tmp_path: Path) -> None:
    host = run(host_of(STR))
    host.finish()
    check_export(host.export()["sparse"], host.masks, tmp_path, "here")
    with pytest.raises(InvariantError, match=r"0\.weight is read back"):
        check_export(ExportsOriginals().export(host.ctx)["sparse"], host.masks, tmp_path, "here")


@pytest.mark.parametrize(("on", "dense"), [("uniform", {"0.weight", "5.weight"}), ("erk", set()), ("global", set())])
def test_what_the_allocator_keeps_dense_has_no_threshold(on: str, dense: set[str]) -> None:
    host = run(host_of(STR, on=on))
    assert set(host.masks) - set(host.ctx.reparametrised) == dense
    host.finish()
    assert {name for name, mask in host.masks.items() if bool(mask.all())} == dense
    assert sum(int(mask.sum()) for mask in host.masks.values()) == host.ctx.budgets().total


def test_without_a_sparsity_it_is_a_plain_training() -> None:
    plain = run(host_of(load_registry().methods["dense"].load(), "dense", 0.0)).state()
    found = run(host_of(STR, sparsity=0.0)).state()
    assert all(torch.equal(found[name], tensor) for name, tensor in plain.items())


def test_published_more_decay_leaves_fewer_weights_and_that_is_said() -> None:
    counts = []
    for decay in (0.0, 0.03, 0.1):
        host = run(host_of(STR, f"str@steer=false,decay={decay}"))
        counts.append(zeros(host))
        host.finish()
        assert host.ctx.notes == [f"thresholds left a sparsity of {host.sparsity_now:.4f}, not 0.8000"]
    assert counts[0] < counts[1] < counts[2]


def test_the_optimizer_has_the_thresholds() -> None:
    host = run(host_of(STR), steps=1)
    assert host.optimizer is not None
    trained = {id(p) for group in host.optimizer.param_groups for p in group["params"]}
    assert all(id(p) in trained for p in host.model.parameters())
    assert sum(p.numel() == 1 for p in host.model.parameters()) == 3


def test_its_state_is_the_shift() -> None:
    host, other = run(host_of(STR)), host_of(STR)
    other.begin(1, STEPS)
    other.model.load_state_dict(host.model.state_dict())
    assert zeros(other) != zeros(host)
    other.method.load_state_dict(host.method.state_dict())
    assert all(torch.equal(other.state()[name], tensor) for name, tensor in host.state().items())


def test_a_shift_lies_between() -> None:
    inf = math.inf
    assert [between(*pair) for pair in ((1.0, 3.0), (-inf, 3.0), (1.0, inf), (-inf, -inf), (inf, inf))] == [
        2.0, 2.0, 2.0, -inf, inf,
    ]  # fmt: skip
    assert between(-inf, inf) == -inf


def test_weights_of_zero_and_of_one_and_more() -> None:
    """No threshold reaches 1: such weights stay, and what comes out is finite."""
    model = net()
    with torch.no_grad():
        for at in (0, 2, 5):
            model[at].weight.mul_(20).round_()
    host = run(host_of(STR, model=model), lr=0.001)
    host.finish()
    assert all(bool(tensor.isfinite().all()) for tensor in host.state().values())
    assert 0 < host.sparsity_now < 1


BAD = ["end=0", "end=1.1", "end=nan", "updates=0", "start=nan", "start=inf", "decay=-1", "decay=nan"]


@pytest.mark.parametrize("options", BAD)
def test_parameters_that_cannot_be(options: str) -> None:
    with pytest.raises(UsageError, match=rf"str: .*{options.partition('=')[0]} = .*str@"):
        host_of(STR, f"str@{options}").begin(1, 10)


def test_what_it_cannot_do() -> None:
    with pytest.raises(BudgetError, match="no 2:4 groups"):
        host_of(STR, sparsity=0.5, on="nm:2:4", model=nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 3))).begin(1, 10)
    with pytest.raises(BudgetError, match="there are no steps"):
        host_of(STR).begin()
