"""OBC on whole models: the promised errors are those of the layers' true outputs; exact counts; each with a fault."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparsebench.builtin.methods._obc import OBC, Layer
from sparsebench.builtin.methods._obs import Rows
from sparsebench.errors import InvariantError
from sparsebench.plugin import Update
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


def convolutions() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(4, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, (3, 2), stride=2, padding=(1, 0), dilation=(1, 2), groups=2), nn.ReLU(), nn.Flatten(),
        nn.Linear(72, 5),
    )  # fmt: skip


def linears() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 4))


MODELS: dict[str, tuple[Callable[[], nn.Sequential], tuple[int, ...]]] = {
    "linear": (linears, (16,)),
    "convolutions": (convolutions, (4, 6, 7)),
}


@pytest.fixture
def pruned(host_of: HostOf) -> Callable[..., Host]:
    """`pruned("convolutions", sparsity, scope=…, method=…, damp=…)`: a host that has finished."""

    def make(kind: str = "linear", sparsity: float = 0.5, scope: Any = "layer", **more: Any) -> Host:
        host = begun(host_of, kind, sparsity, scope, **more)
        host.finish()
        return host

    return make


def begun(host_of: HostOf, kind: str, sparsity: float, scope: Any = "layer", **more: Any) -> Host:
    build, shape = MODELS[kind]
    names = {"sequential", "damp", "columns"} & more.keys()
    text = ",".join(f"{key}={str(more.pop(key)).lower()}" for key in sorted(names))
    allocator = more.pop("allocator", None) or Even(scope)
    options = {"model": build(), "calibration": examples(*shape), **more}
    host = host_of(f"obc@{text}" if text else "obc", sparsity, **options)
    host.allocator = allocator
    host.begin()
    return host


def weights_of(host: Host) -> dict[str, Tensor]:
    return {name: weight.clone() for name, weight in host.ctx.prunable.items()}


def output_errors(kind: str, weights: dict[str, Tensor]) -> dict[str, float]:
    """By layer: the squared change of its outputs on dense inputs, summed over outputs, mean over samples."""
    build, shape = MODELS[kind]
    model, errors = build(), {}
    model.eval()
    with torch.no_grad():
        x = examples(*shape)
        x = x.inputs[x.ids].double()
        for place, layer in enumerate(model.double()):
            name = f"{place}.weight"
            if name in weights:
                before, kept = layer(x), layer.weight.clone()
                layer.weight.copy_(weights[name])
                change = (layer(x) - before).square().transpose(0, 1).flatten(1)
                layer.weight.copy_(kept)
                errors[name] = float(change.mean(1).sum())
            x = layer(x)
    return errors


# The errors that are promised are true


class Promises(OBC):
    """Keeps what the traces said that the chosen removals cost."""

    layer = Layer

    def compress(self, calibration: Any, ctx: Any) -> Iterator[Update]:
        self.promised = {}
        for update in super().compress(calibration, ctx):
            for name, mask in (update.masks or {}).items():
                trace = self.layer(name, calibration, ctx).trace()
                gone = (~mask).flatten(1).sum(1)
                losses = [row[:count].sum() for row, count in zip(trace.losses, gone, strict=True)]
                self.promised[name] = float(torch.stack(losses).sum())
            yield update


def promises_hold(kind: str, method: Promises, pruned: Callable[..., Host]) -> None:
    """Without damping, so that the Hessian is that of the inputs."""
    host = pruned(kind, 0.6, method=method, damp=0.0)
    assert host.notes == []
    true = output_errors(kind, weights_of(host))
    assert true.keys() == method.promised.keys()
    for name, error in true.items():
        assert error == pytest.approx(method.promised[name], rel=1e-4)


@pytest.mark.parametrize("kind", MODELS)
def test_promised_errors_are_those_of_the_outputs(kind: str, pruned: Callable[..., Host]) -> None:
    promises_hold(kind, Promises(), pruned)


class Transposed(Promises):
    """Gives the rows of a layer in another order."""

    def compress(self, calibration: Any, ctx: Any) -> Iterator[Update]:
        for update in super().compress(calibration, ctx):
            assert update.masks is not None and update.weights is not None
            flipped = [{n: t.flip(0) for n, t in part.items()} for part in (update.masks, update.weights)]
            yield Update(*flipped)


class LeavesTheRest(Promises):
    """Prunes, and does not make up for it."""

    def compress(self, calibration: Any, ctx: Any) -> Iterator[Update]:
        for update in super().compress(calibration, ctx):
            yield Update(update.masks)


@pytest.mark.parametrize("broken", [Transposed, LeavesTheRest])
@pytest.mark.parametrize("kind", MODELS)
def test_a_method_that_promises_too_much_fails(kind: str, broken: Any, pruned: Callable[..., Host]) -> None:
    with pytest.raises(AssertionError):
        promises_hold(kind, broken(), pruned)


@pytest.mark.parametrize("kind", MODELS)
def test_errors_are_below_those_of_magnitude(kind: str, pruned: Callable[..., Host], host_of: HostOf) -> None:
    """In every layer; also of the same masks, where nothing makes up for what goes."""
    host, dense = pruned(kind, 0.6), MODELS[kind][0]()
    by_size = host.ctx.select({name: dense.get_parameter(name).detach().abs() for name in host.masks})
    own = output_errors(kind, weights_of(host))
    for masks in (host.masks, by_size):
        others = {name: dense.get_parameter(name).detach() * mask for name, mask in masks.items()}
        for name, error in output_errors(kind, others).items():
            assert own[name] < error


# Exact counts


def counts_are_exact(method: Callable[[], Any], pruned: Callable[..., Host]) -> None:
    """By the definition, whatever the host holds them to, for sparsities a weight from the ends."""
    for one in (1 / 192, 0.3, 0.5, 0.9, 1 - 13 / 192):
        host = pruned("linear", one, method=method())
        for name, mask in host.masks.items():
            assert int(mask.sum()) == round((1 - one) * mask.numel())
            assert bool((weights_of(host)[name][~mask] == 0).all())


class OneTooFew(OBC):
    def compress(self, calibration: Any, ctx: Any) -> Iterator[Update]:
        for update in super().compress(calibration, ctx):
            assert update.masks is not None
            for mask in update.masks.values():
                mask.view(-1)[mask.flatten().nonzero()[0]] = False
            yield update


def test_counts_are_exact(pruned: Callable[..., Host], own_budget: Callable[[Any], Any]) -> None:
    counts_are_exact(OBC, pruned)
    with pytest.raises(AssertionError):
        counts_are_exact(own_budget(OneTooFew), pruned)
    with pytest.raises(InvariantError, match="'budget'"):
        counts_are_exact(OneTooFew, pruned)


@pytest.mark.parametrize("kind", MODELS)
def test_the_whole_model_competes_for_an_exact_total(kind: str, pruned: Callable[..., Host]) -> None:
    for sparsity in (0.37, 0.8):
        masks = pruned(kind, sparsity, "model").masks
        total = sum(mask.numel() for mask in masks.values())
        assert sum(int(mask.sum()) for mask in masks.values()) == round((1 - sparsity) * total)
        assert len({round(float(mask.float().mean()), 2) for mask in masks.values()}) > 1


def test_what_the_model_drops_costs_no_more_than_what_it_keeps(pruned: Callable[..., Host]) -> None:
    """Over layers, by the keys of the dense model's traces as shares of the layers' mean squared outputs."""
    host = pruned("linear", 0.6, "model")
    fresh = linears()
    went, stayed = [], []
    for name, mask in host.masks.items():
        place = int(name[0])
        x = examples(16).inputs[examples(16).ids].double()
        with torch.no_grad():
            x = fresh[:place].double()(x) if place else x
        h = 2 * x.T @ x / len(x)
        h.diagonal().add_(0.01 * float(h.diagonal().mean()))
        weight = fresh.get_parameter(name).detach().double()
        whole = float(torch.einsum("ri,ij,rj->", weight, h, weight)) / 2
        trace = Rows(weight, h).trace()
        kept = mask.gather(1, trace.order.long())
        went.append(trace.keys[~kept] / whole)
        stayed.append(trace.keys[kept] / whole)
    assert float(torch.cat(went).max()) <= float(torch.cat(stayed).min()) * (1 + 1e-6)


def scales_of_layers_say_nothing(method: Callable[[], Any], host_of: HostOf) -> None:
    """A layer made twice as large and the next half as large are the same function, and lose the same weights."""
    plain, scaled = (begun(host_of, "linear", 0.6, "model", method=method()) for _ in range(2))
    with torch.no_grad():
        for parameter in scaled.model[0].parameters():
            parameter.mul_(2)
        scaled.model[2].weight.div_(2)
    plain.finish()
    scaled.finish()
    assert all(torch.equal(mask, scaled.masks[name]) for name, mask in plain.masks.items())


class ByLosses(OBC):
    """Compares layers by what a weight costs, whatever the scale of its layer."""

    def compress(self, calibration: Any, ctx: Any) -> Any:
        traces = {name: Layer(name, calibration, ctx).trace() for name in ctx.prunable}
        scores = {n: torch.empty(ctx.prunable[n].shape) for n in traces}
        for name, trace in traces.items():
            scores[name].flatten(1).scatter_(1, trace.order.long(), trace.keys.float())
        return Update(ctx.select(scores))


def test_scales_of_layers_say_nothing(host_of: HostOf) -> None:
    scales_of_layers_say_nothing(OBC, host_of)
    with pytest.raises(AssertionError):
        scales_of_layers_say_nothing(ByLosses, host_of)


@pytest.mark.parametrize(("keep", "group"), [(2, 4), (1, 4), (4, 8)])
def test_nm_groups_run_along_inputs(keep: int, group: int, host_of: HostOf) -> None:
    """In convolutions too, at every place of the window; and survivors make up for the rest of their whole row."""
    build, shape = MODELS["convolutions"]
    exclude = [] if group == 4 else ["0", "3"]
    host = host_of("obc@damp=0", 1 - keep / group, f"nm:{keep}:{group}", model=build(), exclude=exclude,
                   calibration=examples(*shape))  # fmt: skip
    host.begin()
    host.finish()
    for mask in host.masks.values():
        assert bool((mask.movedim(1, -1).reshape(-1, group).sum(1) == keep).all())
    if group == 8:
        x = convolutions().eval()[:-1].double()(examples(*shape).inputs.double()).detach()
        before, after = build()[-1].weight.detach().double(), host.ctx.prunable["6.weight"].double()
        for row, mask, was in zip(after, host.masks["6.weight"], before, strict=True):
            fit = torch.linalg.lstsq(x[:, mask], x @ was).solution
            torch.testing.assert_close(row[mask], fit, rtol=1e-4, atol=1e-5)
