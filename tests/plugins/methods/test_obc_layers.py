"""What OBC's layers see: dense or pruned inputs, zeros, masks in force; and what it refuses, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparsebench.builtin.methods import _obc
from sparsebench.builtin.methods._obc import OBC
from sparsebench.errors import BudgetError, UnsupportedError, UsageError
from sparsebench.plugin import NM, Update
from sparsebench.pruning.calibration import Calibration
from sparsebench.pruning.host import Host
from sparsebench.testing.methods import Even

HostOf = Callable[..., Host]


def examples(*shape: int, count: int = 160) -> Calibration:
    """Inputs that depend on each other."""
    draw = torch.Generator().manual_seed(0)
    width = torch.Size(shape).numel()
    mixed = torch.randn(count, width, generator=draw) @ torch.randn(width, width, generator=draw) / width**0.5
    return Calibration(mixed.reshape(count, *shape), torch.zeros(count, dtype=torch.int64), count=count, batch=32)


def linears() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 4))


def convolution() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(4, 6, (3, 2), groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 4))


def begun(host_of: HostOf, sparsity: float, scope: Any = "layer", **more: Any) -> Host:
    """A host that is ready to finish; options of the method's name are among `more`."""
    names = {"sequential", "damp", "columns"} & more.keys()
    text = ",".join(f"{key}={str(more.pop(key)).lower()}" for key in sorted(names))
    allocator = more.pop("allocator", None) or Even(scope)
    options = {"model": linears(), "calibration": examples(16), **more}
    host = host_of(f"obc@{text}" if text else "obc", sparsity, **options)
    host.allocator = allocator
    host.begin()
    return host


def weights_of(host: Host) -> dict[str, Tensor]:
    return {name: weight.clone() for name, weight in host.ctx.prunable.items()}


# What layers see


def sees_the_dense_model(host_at: Callable[..., Host], sequential: bool) -> None:
    """A layer's result does not depend on what became of the layer before it, at whatever sparsity that was."""
    made = [weights_of(host_at(first, sequential=sequential))["2.weight"] for first in (0.0, 0.8)]
    assert torch.equal(*made)


def test_layers_see_the_dense_model_unless_told(host_of: HostOf) -> None:
    class Sparser:
        def __init__(self, first: float) -> None:
            self.first = first

        def allocate(self, layers: Any, target: float, ctx: Any) -> dict[str, float]:
            return {name: self.first if name == "0.weight" else target for name in layers}

    def at(first: float, sequential: bool) -> Host:
        host = begun(host_of, 0.5, sequential=sequential, allocator=Sparser(first))
        host.finish()
        return host

    sees_the_dense_model(at, sequential=False)
    with pytest.raises(AssertionError):
        sees_the_dense_model(at, sequential=True)


def test_sequential_is_layer_after_layer_by_hand(host_of: HostOf) -> None:
    host, model = begun(host_of, 0.5, sequential=True), linears()
    host.finish()
    for name in ("0", "2", "4"):
        exclude = [other for other in ("0", "2", "4") if other != name]
        by_hand = begun(host_of, 0.5, exclude=exclude, model=model)
        by_hand.finish()  # changes the model, for the next
    assert all(torch.equal(weight, model.get_parameter(name)) for name, weight in weights_of(host).items())
    assert host.updates == 3


def test_weights_of_inputs_that_are_always_zero_go_first(host_of: HostOf) -> None:
    data = examples(16)
    data.inputs[:, [2, 9]] = 0
    hosts = [begun(host_of, s, calibration=data) for s in (0.125, 0.05)]
    for host in hosts:
        host.finish()
    assert not bool(hosts[0].masks["0.weight"][:, [2, 9]].any())
    dense, kept = linears()[0].weight.detach()[:, [2, 9]], hosts[1].masks["0.weight"][:, [2, 9]]
    assert bool(kept.any())
    assert torch.equal(hosts[1].ctx.prunable["0.weight"][:, [2, 9]], dense * kept)
    assert hosts[0].notes == []


def test_a_singular_hessian_is_damped_and_said(host_of: HostOf) -> None:
    data = examples(16, count=10)  # fewer than inputs
    host = begun(host_of, 0.5, damp=0.0, calibration=data)
    host.finish()
    assert any("singular Hessian was damped" in note for note in host.notes)


def test_what_is_pruned_stays_pruned(host_of: HostOf) -> None:
    class Before(OBC):
        def setup(self, ctx: Any) -> Any:
            super().setup(ctx)
            draw = {name: torch.rand(mask.shape, generator=ctx.generator) for name, mask in ctx.masks.items()}
            self.masks = ctx.select(draw, 0.25)
            return Update(masks=dict(self.masks), sparsity=0.25)

    method = Before()
    host = begun(host_of, 0.5, method=method)
    host.finish()
    assert all(not bool((mask & ~method.masks[name]).any()) for name, mask in host.masks.items())


def test_a_layer_that_keeps_everything_is_left_alone(host_of: HostOf) -> None:
    host = host_of("obc", 0.5, "uniform", model=linears(), calibration=examples(16))
    host.begin()
    host.finish()
    assert torch.equal(host.ctx.prunable["0.weight"], linears()[0].weight)
    assert float(host.masks["2.weight"].float().mean()) == 0.5


# The database


def levels_are_those_of_single_runs(method: Any, host_of: HostOf) -> None:
    """In the order that was asked for, with one weight left where there would be none."""
    for build, data in ((linears, examples(16)), (convolution, examples(4, 5, 5))):
        host = begun(host_of, 0.5, model=build(), calibration=data)
        made = method.levels(host.calibration, host.ctx, [0.9, 0.0, 0.5, 1.0, 0.9])
        assert made.keys() == host.masks.keys()
        for sparsity, place in ((0.5, 2), (0.9, 0), (0.9, 4)):
            single = begun(host_of, sparsity, model=build(), calibration=data)
            single.finish()
            for name, weight in weights_of(single).items():
                torch.testing.assert_close(made[name][place], weight)
                assert torch.equal(made[name][place] == 0, weight == 0)
        for name, levels in made.items():
            assert torch.equal(levels[1], host.ctx.prunable[name])
            assert int((levels[3] != 0).sum()) == 1
            assert all(level.dtype == torch.float32 for level in levels)


class WithoutMakingUp(OBC):
    def levels(self, calibration: Any, ctx: Any, sparsities: Any) -> Any:
        made = super().levels(calibration, ctx, sparsities)
        return {name: [ctx.prunable[name] * (level != 0) for level in levels] for name, levels in made.items()}


class Sorted(OBC):
    def levels(self, calibration: Any, ctx: Any, sparsities: Any) -> Any:
        return super().levels(calibration, ctx, sorted(sparsities))


@pytest.mark.parametrize("broken", [WithoutMakingUp, Sorted])
def test_levels_are_those_of_single_runs(broken: Any, host_of: HostOf) -> None:
    levels_are_those_of_single_runs(OBC(), host_of)
    with pytest.raises(AssertionError):
        levels_are_those_of_single_runs(broken(), host_of)


def test_levels_need_no_options_of_obc(host_of: HostOf) -> None:
    """An allocator asks for them whatever method runs."""
    host = host_of("magnitude", 0.5, model=linears(), calibration=examples(16))
    ours = begun(host_of, 0.5)
    one, other = (OBC().levels(h.calibration, h.ctx, [0.5]) for h in (host, ours))
    assert all(torch.equal(one[name][0], other[name][0]) for name in one)


def test_levels_that_cannot_be(host_of: HostOf) -> None:
    host = begun(host_of, 0.5)
    with pytest.raises(UsageError, match="sparsities"):
        OBC().levels(host.calibration, host.ctx, [0.5, 1.5])


# Errors


@pytest.mark.parametrize("option", [{"damp": -0.1}, {"damp": "nan"}, {"damp": "inf"}, {"columns": 0}])
def test_options_that_cannot_be(option: dict[str, Any], host_of: HostOf) -> None:
    with pytest.raises(UsageError, match=next(iter(option))):
        begun(host_of, 0.5, **option)


def test_sequential_cannot_compete_over_the_model(host_of: HostOf) -> None:
    with pytest.raises(UsageError, match="sequential"):
        begun(host_of, 0.5, "model", sequential=True)


def test_a_layer_that_is_too_wide_is_named_before_any_work(host_of: HostOf) -> None:
    with pytest.raises(UnsupportedError, match=r"0\.weight has 16 inputs.*columns = 15.*use sparsegpt"):
        begun(host_of, 0.5, columns=15)


def test_groups_that_do_not_divide(host_of: HostOf) -> None:
    with pytest.raises(BudgetError, match=r"4\.weight has 8 input channels"):
        begun(host_of, 1 - 2 / 3, NM(2, 3), exclude=["0", "2"])


def test_numbers_that_are_none_name_their_layer(host_of: HostOf) -> None:
    model, data = linears(), examples(16)
    data.inputs[3, 3] = torch.inf
    with pytest.raises(UsageError, match=r"obc: 0\.weight: .*not finite"):
        begun(host_of, 0.5, model=model, calibration=data).finish()
    with torch.no_grad():
        model[2].weight[1, 1] = torch.nan
    with pytest.raises(UsageError, match=r"obc: 2\.weight: .*not finite"):
        begun(host_of, 0.5, model=model, exclude=["0", "4"]).finish()


def test_too_little_memory_names_the_layer(host_of: HostOf, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise MemoryError("not enough memory for rows of 16")

    monkeypatch.setattr(_obc.Rows, "trace", refuse)
    with pytest.raises(MemoryError, match=r"obc: 0\.weight: .*rows of 16; exclude the layer, or use sparsegpt"):
        begun(host_of, 0.5).finish()
