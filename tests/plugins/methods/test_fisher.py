"""WoodFisher and M-FAC on a host: every gradient counts, masks nest, what is pruned is made up for by what is left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sparsebench.builtin.methods import _fisher
from sparsebench.builtin.methods._fisher import Inverse, saliency
from sparsebench.builtin.methods._mfac import MFAC
from sparsebench.builtin.methods._woodfisher import WoodFisher
from sparsebench.errors import BudgetError, UnsupportedError, UsageError
from sparsebench.plugin import Calibration, Context
from sparsebench.pruning.contract import Event
from sparsebench.pruning.host import Host
from sparsebench.registry import load_registry
from sparsebench.testing import method_checks, run_method_check

Make = Callable[..., Any]


def examples(count: int = 48, batch: int = 16) -> Calibration:
    inputs = torch.randn(64, 8, generator=torch.Generator().manual_seed(3))
    return Calibration(inputs, inputs[:, :3].argmax(1), count=count, batch=batch)


@pytest.fixture(params=["woodfisher", "m-fac"])
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


CLASSES: dict[str, type[Any]] = {"woodfisher": WoodFisher, "m-fac": MFAC}


def compressed(host: Host) -> Host:
    host.begin()
    host.finish()
    return host


class CorrectsByMasked:
    """The fault: gradients of weights that went long ago still have a part in F."""

    def _inverse(self, ctx: Context, alive: Tensor) -> Inverse:
        found: Inverse = super()._inverse(ctx, torch.ones_like(alive))  # type: ignore[misc]
        return found


def one_more_is_the_minimum_beside_what_went(host: Host) -> None:
    """After half of a layer went, the next weight leaves the minimum over what is left: from gradients of our own."""
    weight = host.model.get_parameter("0.weight")
    host.begin(1, 10)
    host.ctx.step = min(host.method._schedule)
    host.event(Event.STEP_BEGIN)
    host.model.eval()
    rows = []
    for inputs, labels in examples(batch=4).batches():
        host.model.zero_grad()
        F.cross_entropy(host.model(inputs), labels).backward()
        rows.append(weight.grad.flatten())  # type: ignore[union-attr]
    host.model.zero_grad()
    host.model.train()
    before, alive = weight.detach().double().flatten(), host.masks["0.weight"].flatten()
    host.ctx.step = max(host.method._schedule)
    host.event(Event.STEP_BEGIN)
    rest = host.masks["0.weight"].flatten()
    (gone,) = (alive & ~rest).nonzero().flatten().tolist()
    assert (int(alive.sum()), int(rest.sum())) == (80, 79)
    fisher = 1e-5 * torch.eye(160, dtype=torch.float64) + torch.stack(rows).double().T @ torch.stack(rows).double() / 12
    expected = torch.zeros_like(before)
    expected[rest] = before[rest] + torch.linalg.solve(fisher[rest][:, rest], fisher[rest, gone] * before[gone])
    torch.testing.assert_close(weight.detach().double().flatten(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("block", [1000, 8])
def test_one_more_weight_beside_what_went(block: int, method: str, host_of: Make) -> None:
    name = f"{method}@block={block},gradual=true,updates=1,initial=0.5"
    options = {"sparsity": 81 / 160, "exclude": ["3", "6", "9"], "calibration": examples()}
    kinds = CLASSES[method], type("Broken", (CorrectsByMasked, CLASSES[method]), {})
    if block == 1000:
        one_more_is_the_minimum_beside_what_went(host_of(name, **options))
        with pytest.raises(AssertionError):
            one_more_is_the_minimum_beside_what_went(host_of(name, method=kinds[1](), **options))
    else:  # the twin of the oracle: blocks that leave something out are no minimum of all
        with pytest.raises(AssertionError):
            one_more_is_the_minimum_beside_what_went(host_of(name, **options))


def every_gradient_counts(make: Callable[[], Any], method: str, host_of: Make) -> None:
    """Other labels of the last batch, which is smaller than the others, change weights that are kept."""
    states = []
    for change in (0, 1):
        given = examples(count=50)
        labels = given.labels.clone()
        labels[given.ids[-1]] = (labels[given.ids[-1]] + change) % 3
        changed = Calibration(given.inputs, labels, count=50)
        host = compressed(host_of(f"{method}@gradients=13", calibration=changed, method=make()))
        assert host.ctx.notes == []
        states.append(host.state()["0.weight"])
    assert not torch.equal(*states)


class WithoutTheLast:
    """The fault of published code: the last gradient is never asked for, though m counts it."""

    def _inverse(self, ctx: Context, alive: Tensor) -> Inverse:
        kind = self.inverse  # type: ignore[attr-defined]
        self.inverse = lambda sizes, count, *more: LastIsZero(kind(sizes, count, *more))
        try:
            found: Inverse = super()._inverse(ctx, alive)  # type: ignore[misc]
        finally:
            self.inverse = kind
        return found


class LastIsZero:
    """An inverse that takes zeros for the last gradient."""

    def __init__(self, inside: Inverse) -> None:
        self.inside, self.left = inside, inside.count

    def add(self, rows: Tensor) -> None:
        self.left -= len(rows)
        self.inside.add(torch.cat([rows[:-1], rows[-1:] * min(self.left, 1)]))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inside, name)


def test_every_gradient_counts(method: str, host_of: Make) -> None:
    kind = CLASSES[method]
    every_gradient_counts(kind, method, host_of)
    broken = type("Broken", (WithoutTheLast, kind), {})
    with pytest.raises(AssertionError):
        every_gradient_counts(broken, method, host_of)


def follows_its_neurons(name: str, host_of: Make, net: Make) -> None:
    """Hidden neurons in another order have masks and weights in that order."""
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    turned = net()
    with torch.no_grad():
        for each in (turned[3].weight, turned[3].bias):
            each.copy_(each[order])
        turned[6].weight.copy_(turned[6].weight[:, order])
    plain, other = (compressed(host_of(name, 0.8, model=m, calibration=examples())) for m in (net(), turned))
    for at, axis in (("3.weight", 0), ("6.weight", 1)):
        assert torch.equal(other.masks[at], plain.masks[at].index_select(axis, order))
        expected = plain.state()[at].index_select(axis, order)
        torch.testing.assert_close(other.state()[at], expected, rtol=1e-3, atol=1e-4)


def test_neurons_in_another_order_unless_blocks_cut_through_them(method: str, host_of: Make, net: Make) -> None:
    follows_its_neurons(f"{method}@block=400", host_of, net)
    with pytest.raises(AssertionError):
        follows_its_neurons(f"{method}@block=7", host_of, net)


class ByScoresAlone:
    """The fault: a kept weight that has become 0 ties with the masked ones, and may lose to them."""

    @staticmethod
    def _scores(weights: Tensor, diagonal: Tensor, alive: Tensor) -> Tensor:
        return saliency(weights, diagonal)


def shrinks_where_weights_are_zero(host: Host) -> None:
    host.begin(1, 10)
    for step in sorted(host.method._schedule):
        before = dict(host.masks)
        host.ctx.step = step
        host.event(Event.STEP_BEGIN)
        assert all(bool((before[name] | ~mask).all()) for name, mask in host.masks.items())
        with torch.no_grad():
            for name in host.masks:
                host.model.get_parameter(name).flatten()[::2] = 0


def test_masks_only_shrink_where_kept_weights_are_zero(method: str, host_of: Make) -> None:
    options = {"sparsity": 0.8, "allocator": "uniform", "calibration": examples()}
    name = f"{method}@gradual=true,updates=4"
    shrinks_where_weights_are_zero(host_of(name, **options))
    broken = type("Broken", (ByScoresAlone, CLASSES[method]), {})
    with pytest.raises(AssertionError):
        shrinks_where_weights_are_zero(host_of(name, method=broken(), **options))


@pytest.mark.parametrize("allocator", ["global", "erk"])
@pytest.mark.parametrize("lr", [0.0, 0.1])
def test_gradual_masks_nest_and_end_exactly_on_target(
    lr: float, allocator: str, method: str, host_of: Make, drive: Callable[..., Host]
) -> None:
    host, seen = host_of(f"{method}@gradual=true,updates=5", 0.9, allocator, calibration=examples()), []
    drive(host, 20, lr=lr, look=lambda: seen.append((dict(host.masks), host.sparsity_now)))
    assert all(bool((a[name] | ~b[name]).all()) for (a, _), (b, _) in pairwise(seen) for name in a)
    planned = host.method._schedule
    assert (min(planned), max(planned), planned[14]) == (2, 14, 0.9)
    assert host.updates == len(planned) == 6
    total, now = sum(mask.numel() for mask in host.masks.values()), 0.0
    for step, (_, measured) in enumerate(seen):
        now = planned.get(step, now)
        assert measured == pytest.approx(1 - host.ctx.budgets(now).total / total, abs=1e-12)


def test_gradual_in_one_update_without_training_is_one_shot(
    method: str, host_of: Make, drive: Callable[..., Host]
) -> None:
    gradual, shot, curve = (
        drive(host_of(f"{method}@{options}", 0.8, calibration=examples()), 10, lr=0.0)
        for options in ("gradual=true,updates=1,initial=0,begin=0", "block=1000", "gradual=true")
    )
    first = compressed(host_of(f"{method}@", 0.8, calibration=examples()))
    assert shot.updates == first.updates == 1
    assert not all(torch.equal(curve.masks[name], first.masks[name]) for name in first.masks)
    assert gradual.updates == 2


def test_fewer_batches_than_asked_for_are_all_used_and_said(method: str, host_of: Make) -> None:
    host = compressed(host_of(f"{method}@gradients=100,batch=5", calibration=examples()))
    assert host.ctx.notes == ["10 gradients of 5 examples each: calibration has no more, 100 were asked for"]
    exact = compressed(host_of(f"{method}@gradients=10,batch=5", calibration=examples()))
    assert exact.ctx.notes == []
    assert all(torch.equal(host.state()[name], exact.state()[name]) for name in host.masks)


BAD = [("gradients=0", "gradients = 0; use a whole number of at least 1"), ("batch=0", "batch = 0; use"),
       ("block=-1", "block = -1; use"), ("damp=0", "damp = 0; use a number above 0"), ("damp=nan", "damp = nan"),
       ("damp=inf", "damp = inf"), ("gradual=true,begin=0.7", "begin = 0.7"), ("gradual=true,updates=0", "updates = 0"),
       ("gradual=true,initial=nan", "initial = nan")]  # fmt: skip


@pytest.mark.parametrize(("options", "says"), BAD)
def test_what_cannot_be_is_an_error_before_any_work(options: str, says: str, method: str, host_of: Make) -> None:
    with pytest.raises(UsageError, match=f"{method}.*{says}"):
        host_of(f"{method}@{options}", calibration=examples()).begin(1, 10)


def test_so_is_what_it_cannot_do_without(method: str, host_of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=f"{method} needs 'calibration'"):
        host_of(method)
    with pytest.raises(BudgetError, match="gradual = true prunes in a training, and there is none; use epochs"):
        host_of(f"{method}@gradual=true", calibration=examples()).begin()
    with pytest.raises(BudgetError, match=r"nm:2:4 has the sparsity 0\.5 and no other"):
        host_of(f"{method}@gradual=true", 0.5, "nm:2:4", exclude=["9"], calibration=examples()).begin(1, 10)
    monkeypatch.setattr(_fisher, "LIMIT", 1e4)
    with pytest.raises(UnsupportedError, match=rf"{method}: 12 gradients of 1020 weights .* take .* GB, .*; use"):
        host_of(method, calibration=examples()).begin()


def test_gradients_too_large_for_the_damp_are_an_error(method: str, host_of: Make) -> None:
    large = examples()
    large.inputs.mul_(1e6)
    only = {"sparsity": 0.5, "exclude": ["3", "6", "9"], "calibration": large}
    host = host_of(f"{method}@block=1", **only)
    host.begin()
    with pytest.raises(
        UsageError, match=f"{method}: damp = 1e-05 is lost beside gradients as large as these; raise it"
    ):
        host.finish()
    compressed(host_of(f"{method}@block=1,damp=1e7", **only))


@pytest.mark.parametrize("check", method_checks(), ids=lambda check: check.name)
def test_every_check_in_the_course_of_a_training(check: Any, method: str) -> None:
    entry, parameters = load_registry().find("methods", f"{method}@gradual=true,updates=4")
    result = run_method_check(entry.load(), replace(entry.spec, parameters=parameters), check)
    assert result.status == ("unsupported" if check.name == "2:4 groups" else "ok"), result.reason


@pytest.mark.parametrize("check", method_checks(), ids=lambda check: check.name)
def test_every_check_in_one_shot(check: Any, method: str) -> None:
    entry = load_registry().methods[method]
    result = run_method_check(entry.load(), entry.spec, check)
    assert result.status == "ok", result.reason
