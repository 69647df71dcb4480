"""The kit passes an honest method, and a method with one fault fails what shows it, by the name of the rule."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sparsebench.plugin import MethodSpec
from sparsebench.pruning.context import Context
from sparsebench.pruning.contract import Event, StateDict, Update
from sparsebench.testing import method_checks, run_method_check
from sparsebench.testing.methods import MethodCheck

GRID = method_checks()
COMPARED = tuple(check.name for check in GRID if check.compare)
RESUMED = tuple(check.name for check in GRID if check.compare == "resumed")
SAMPLE = ("linear, adam", "one budget for the model", "an excluded layer", "on kernels, convolutions",
          "the same seed twice", "interrupted and resumed")  # fmt: skip


def spec(kind: str = "gradual", needs: frozenset[str] = frozenset(), **parameters: Any) -> MethodSpec:
    return MethodSpec(name="tested", summary="", load="a:b", kind=kind, source="", needs=needs, parameters=parameters)


class Honest:
    """At the beginning of every epoch it keeps whom a random walk has taken highest, so masks go on to move."""

    def __init__(self) -> None:
        self.seen: dict[str, Tensor] = {}

    def on_event(self, event: Event, ctx: Context) -> Update | None:
        if event is not Event.EPOCH_BEGIN:
            return None
        for name, weight in ctx.prunable.items():
            step = torch.rand(weight.shape, generator=ctx.generator)
            self.seen[name] = self.seen.get(name, torch.zeros_like(weight)) + step
        return Update(masks=self.masks(ctx))

    def masks(self, ctx: Context) -> dict[str, Tensor]:
        return ctx.select(self.seen)

    def state_dict(self) -> dict[str, Any]:
        return dict(self.seen)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen = dict(state)


class OneTooFew(Honest):
    def masks(self, ctx: Context) -> dict[str, Tensor]:
        masks = super().masks(ctx)
        last = masks[[*masks][-1]].view(-1)
        last[last.nonzero()[0]] = False
        return masks


class DropsTies(Honest):
    """A comparison with a threshold, on scores that tie."""

    def masks(self, ctx: Context) -> dict[str, Tensor]:
        made = {}
        for name, seen in self.seen.items():
            score = (seen * 20).round()
            keep = ctx.budget(name)
            made[name] = score > score.view(-1).sort(descending=True).values[keep]
        return made


class OverTheModel(Honest):
    """All layers compete, whatever the allocator says."""

    def masks(self, ctx: Context) -> dict[str, Tensor]:
        keep = sum(ctx.budget(name) for name in self.seen)
        threshold = torch.cat([seen.view(-1) for seen in self.seen.values()]).sort(descending=True).values[keep]
        return {name: seen > threshold for name, seen in self.seen.items()}


class WritesThroughData(Honest):
    """Where torch's version counters see nothing."""

    def on_event(self, event: Event, ctx: Context) -> Update | None:
        if event is Event.STEP_END and ctx.step == 3:
            next(p for p in ctx.model.parameters() if p.dim() == 1).data.add_(1e-3)
        return super().on_event(event, ctx)


class DrawsFromEverybody(Honest):
    def on_event(self, event: Event, ctx: Context) -> Update | None:
        if event is Event.GRADS_READY:
            torch.rand(1)
        return super().on_event(event, ctx)


class Forgets(Honest):
    """What it has seen is not in its state."""

    def state_dict(self) -> dict[str, Any]:
        return {}


class Differs(Honest):
    trainings = 0

    def __init__(self) -> None:
        super().__init__()
        Differs.trainings += 1

    def masks(self, ctx: Context) -> dict[str, Tensor]:
        self.seen = {name: seen.roll(Differs.trainings) for name, seen in self.seen.items()}
        return super().masks(ctx)


class HalfWay(Honest):
    def on_event(self, event: Event, ctx: Context) -> Update | None:
        if event is not Event.EPOCH_BEGIN:
            return None
        sparsity = ctx.sparsity / 2
        return Update(masks=ctx.select({n: w.abs() for n, w in ctx.prunable.items()}, sparsity), sparsity=sparsity)


class Idle:
    """Nothing at all."""


class ExportsUnderAnotherName(Honest):
    def export(self, ctx: Context) -> dict[str, StateDict]:
        return {"pruned": ctx.state()}


class ExportsOtherNames(Honest):
    def export(self, ctx: Context) -> dict[str, StateDict]:
        return {"sparse": {f"model.{name}": tensor for name, tensor in ctx.state().items()}}


class LosesABias(Honest):
    def export(self, ctx: Context) -> dict[str, StateDict]:
        state = ctx.state()
        del state[next(name for name in state if name.endswith("bias"))]
        return {"sparse": state}


class ExportsMaskedWeights(Honest):
    def export(self, ctx: Context) -> dict[str, StateDict]:
        return {"sparse": {n: t + 1e-3 if n in ctx.masks else t for n, t in ctx.state().items()}}


class ExportsAnotherModel(Honest):
    def export(self, ctx: Context) -> dict[str, StateDict]:
        return {"sparse": {n: t * 2 if n in ctx.masks else t for n, t in ctx.state().items()}}


class Raises(Honest):
    def on_event(self, event: Event, ctx: Context) -> Update | None:
        if event is Event.STEP_BEGIN and ctx.step == 2:
            raise ValueError("no luck")
        return super().on_event(event, ctx)


class PrunesExcluded(Honest):
    """Goes through the layers of the model, not through those that it is given."""

    def masks(self, ctx: Context) -> dict[str, Tensor]:
        made = super().masks(ctx)
        every = dict(ctx.model.named_parameters())
        first = {n: torch.arange(every[n].numel()).view(every[n].shape) % 2 == 0 for n in ctx.layers if n in every}
        return {**first, **made}


class NotAnUpdate(Honest):
    def on_event(self, event: Event, ctx: Context) -> Any:
        update = super().on_event(event, ctx)
        return update and update.masks


def everywhere(check: MethodCheck) -> bool:
    return True


def where_layers_compete_alone(check: MethodCheck) -> bool:
    return check.scope == "layer"


FAULTS: list[tuple[type, Callable[[MethodCheck], bool], str]] = [
    (OneTooFew, everywhere, "invariant 'budget'"),
    (DropsTies, everywhere, "invariant 'budget'"),
    (OverTheModel, where_layers_compete_alone, "invariant 'budget'"),
    (WritesThroughData, everywhere, "invariant 'untouched'"),
    (DrawsFromEverybody, everywhere, "invariant 'random-state'"),
    (Forgets, lambda check: check.name in RESUMED, "differs between two trainings with the same seed"),
    (Differs, lambda check: check.name in COMPARED, "differs between two trainings with the same seed"),
    (HalfWay, everywhere, "invariant 'final-budget'"),
    (Idle, everywhere, "invariant 'final-budget'"),
    (ExportsUnderAnotherName, everywhere, "invariant 'export'"),
    (ExportsOtherNames, everywhere, "invariant 'export'"),
    (LosesABias, everywhere, "invariant 'export'"),
    (ExportsMaskedWeights, everywhere, "invariant 'export'"),
    (ExportsAnotherModel, everywhere, "invariant 'export'"),
    (PrunesExcluded, lambda check: bool(check.exclude), "invariant 'scope'"),
    (NotAnUpdate, everywhere, "invariant 'scope'"),
]


@pytest.mark.parametrize("check", GRID, ids=lambda check: check.name)
def test_an_honest_method_passes_the_whole_kit(check: MethodCheck) -> None:
    result = run_method_check(Honest, spec(), check)
    assert (result.status, result.reason) == ("ok", None)


@pytest.mark.parametrize(("fault", "shows", "what"), FAULTS, ids=[fault.__name__ for fault, *_ in FAULTS])
def test_a_fault_fails_what_shows_it_and_nothing_else(
    fault: type, shows: Callable[[MethodCheck], bool], what: str
) -> None:
    for check in (check for check in GRID if check.name in SAMPLE):
        result = run_method_check(fault, spec(), check)
        if shows(check):
            assert (result.name, result.status) == (check.name, "wrong")
            assert what in (result.reason or "")
        else:
            assert (result.status, result.reason) == ("ok", None), check.name


def test_every_fault_shows_in_the_sample() -> None:
    sample = [check for check in GRID if check.name in SAMPLE]
    assert len(sample) == len(SAMPLE)
    assert all(any(shows(check) for check in sample) for _, shows, _ in FAULTS)


def test_what_a_method_raises_is_told_with_its_place() -> None:
    result = run_method_check(Raises, spec(), GRID[0])
    assert result.status == "error"
    assert result.reason == f"ValueError: no luck (in on_event, test_methods.py:{line_of('raise ValueError')})"


def line_of(text: str) -> int:
    lines = Path(__file__).read_text().splitlines()
    return next(number for number, line in enumerate(lines, start=1) if text in line)


def test_of_the_kind_none_only_what_keeps_every_weight_is_right() -> None:
    assert run_method_check(Idle, spec(kind="none"), GRID[0]).status == "ok"
    prunes = run_method_check(HalfWay, spec(kind="none"), GRID[0])
    assert prunes.status == "ok", "its target is 0, and half of that too"


def test_budgets_of_its_own_must_be_declared() -> None:
    needs = frozenset({"own_budget"})
    assert run_method_check(HalfWay, spec(needs=needs), GRID[0]).status == "ok"
    assert run_method_check(HalfWay, spec(), GRID[0]).status == "wrong"


def test_a_method_leaves_the_number_of_threads_as_it_was() -> None:
    before = torch.get_num_threads()
    run_method_check(Raises, spec(), GRID[0])
    assert torch.get_num_threads() == before
