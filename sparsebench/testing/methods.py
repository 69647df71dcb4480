"""The conformance kit of pruning methods: small trainings under a strict host, over models, optimizers and budgets.

Every check trains a model of a few layers for a few steps. The host looks after every event: masked weights and what
the optimizer remembers of them are zero, every mask meets its budget, nothing else was touched.
"""

from __future__ import annotations

import contextlib
import tempfile
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparsebench.errors import BudgetError, InvariantError
from sparsebench.nn.backends import BackendHandle
from sparsebench.pruning.calibration import Calibration
from sparsebench.pruning.contract import NM, Scope, StateDict
from sparsebench.pruning.export import check_export
from sparsebench.pruning.host import Host
from sparsebench.pruning.kernels import Kernels
from sparsebench.pruning.masks import sparsity_of
from sparsebench.registry import load_registry
from sparsebench.testing.conformance import CheckResult
from sparsebench.training.data import Examples, Splits
from sparsebench.training.loop import TrainResult, train
from sparsebench.training.recipe import Recipe

CLASSES, SIDE, EPOCHS = 4, 8, 6


@dataclass
class Even:
    """The same sparsity for every layer, or one budget for the model, or N:M groups."""

    scope: Scope = "layer"

    def allocate(self, layers: Mapping[str, Tensor], target: float, ctx: Any) -> dict[str, float]:
        """The target everywhere; N:M groups have one sparsity, and a schedule on the way there cannot be met."""
        if isinstance(self.scope, NM) and target != 1 - self.scope.keep / self.scope.group:
            raise BudgetError(f"{self.scope} groups have one sparsity, not {target:g}")
        return dict.fromkeys(layers, target)


@dataclass(frozen=True)
class MethodCheck:
    """One training, or a comparison of two."""

    name: str
    sparsity: float = 0.75
    scope: Scope = "layer"
    convolutions: bool = False
    kernels: bool = False
    recipe: Mapping[str, Any] = field(default_factory=dict)
    compare: str = ""  # "again" or "resumed": train a second time, and demand the same bits
    exclude: tuple[str, ...] = ()


class Interrupted(Exception):
    """Raised in the midst of a training that is to be resumed."""


def method_checks() -> tuple[MethodCheck, ...]:
    """All checks; they are the same for every method."""
    optimizers = (
        ("sgd with momentum and decay", {"weight_decay": 0.01}),
        ("sgd without momentum", {"momentum": 0.0}),
        ("nesterov", {"nesterov": True}),
        ("adam", {"optimizer": "adam", "lr": 0.01}),
        ("adamw", {"optimizer": "adamw", "lr": 0.01, "weight_decay": 0.1}),
    )
    return (
        *(MethodCheck(f"linear, {name}", recipe=recipe) for name, recipe in optimizers),
        *(MethodCheck(f"linear, sparsity {s:g}", sparsity=s) for s in (0.5, 0.9, 0.97)),
        MethodCheck("convolutions and norms", convolutions=True),
        MethodCheck("one budget for the model", scope="model", convolutions=True),
        MethodCheck("2:4 groups", sparsity=0.5, scope=NM(2, 4)),
        MethodCheck("an excluded layer", exclude=("0",)),
        MethodCheck("one epoch", recipe={"epochs": 1}),
        MethodCheck("on kernels, linear", kernels=True),
        MethodCheck("on kernels, convolutions", kernels=True, convolutions=True),
        MethodCheck("the same seed twice", compare="again"),
        MethodCheck("interrupted and resumed", compare="resumed"),
        MethodCheck("interrupted and resumed on kernels", compare="resumed", kernels=True, convolutions=True),
    )


def run_method_check(make: Callable[[], Any], spec: Any, check: MethodCheck) -> CheckResult:
    """Train and look; `make` gives a fresh method. Whatever Python error the method raises is a result."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        state = _trained(make, spec, check)
        if check.compare:
            again = _trained(make, spec, check, resumed=check.compare == "resumed")
            odd = _difference(state, again)
            if odd:
                return CheckResult(check.name, "wrong", f"{odd} differs between two trainings with the same seed")
    except InvariantError as error:
        return CheckResult(check.name, "wrong", str(error))
    except BudgetError as error:
        return CheckResult(check.name, "unsupported", str(error))
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")
        return CheckResult(check.name, "error", f"{text} (in {last.name}, {Path(last.filename).name}:{last.lineno})")
    finally:
        torch.set_num_threads(threads)
    return CheckResult(check.name, "ok")


def _trained(make: Callable[[], Any], spec: Any, check: MethodCheck, resumed: bool = False) -> StateDict:
    """The exported states of one training, names joined; interrupted after the third epoch if it is to be resumed."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "state.pt"
        if resumed:
            with contextlib.suppress(Interrupted):
                _train(_host(make, spec, check), check, file, stop=EPOCHS // 2)
        host = _host(make, spec, check)
        result = _train(host, check, file)
        exports = host.export()
        _look_at(exports, host, Path(folder))
    if not spec.prunes and sparsity_of(host.masks) > 0:
        raise InvariantError("final-budget", f"method {spec.name} is of the kind {spec.kind!r} and prunes")
    assert result.steps > 0
    return {f"{name}: {key}": tensor for name, state in exports.items() for key, tensor in state.items()}


def _look_at(exports: Mapping[str, StateDict], host: Host, folder: Path) -> None:
    """Raise `InvariantError` "export" if what a method exports is not the model that was trained, or cannot be kept."""
    if "sparse" not in exports:
        raise InvariantError("export", f"method {host.name} exports {sorted(exports)}; one must be named 'sparse'")
    trained = host.state()
    for name, state in exports.items():
        where = f"method {host.name}, export {name!r}"
        odd = sorted(state.keys() ^ trained.keys())
        if odd:
            raise InvariantError("export", f"{where}: other names: {odd[:3]}")
        check_export(state, host.masks if name == "sparse" else {}, folder, where)
        if name == "sparse" and (changed := _difference(state, trained)):
            raise InvariantError("export", f"{where}: {changed} is not what was trained")


def _host(make: Callable[[], Any], spec: Any, check: MethodCheck) -> Host:
    model, splits = _model(check), _splits(check)
    kernels = Kernels(_any_backend(), splits.train.inputs[:16]) if check.kernels else None
    return Host(
        model, make(), Even(check.scope), sparsity=check.sparsity if spec.prunes else 0.0,
        exclude=check.exclude, name=spec.name, needs=spec.needs, parameters=dict(spec.parameters), kernels=kernels,
        calibration=Calibration(*splits.train, count=64, batch=16), strict=True,
    )  # fmt: skip


@cache
def _any_backend() -> BackendHandle:
    """A sparse backend of our own: which one does not matter, it has been proven right."""
    registry = load_registry()
    ours = (n for n, e in registry.backends.items() if e.source.ours and not e.spec.peer and len(e.spec.ops) == 2)
    return next(h for h in map(BackendHandle, ours) if not getattr(h.backend, "dense", False))


def _train(host: Host, check: MethodCheck, file: Path, stop: int = 0) -> TrainResult:
    def progress(epoch: int, loss: float, accuracy: float) -> None:
        if epoch == stop:
            raise Interrupted

    recipe = Recipe(**{"epochs": EPOCHS, "batch": 16, "lr": 0.05, **check.recipe})
    return train(host.model, _splits(check), recipe, host=host, file=file, progress=progress)


def _model(check: MethodCheck) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if check.convolutions:
            return nn.Sequential(
                nn.Conv2d(4, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
                nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
                nn.Linear(64, CLASSES),
            )  # fmt: skip
        return nn.Sequential(
            nn.Linear(SIDE * SIDE, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 24), nn.ReLU(), nn.Linear(24, CLASSES)
        )


def _splits(check: MethodCheck) -> Splits:
    """Clusters that a small model can tell apart."""
    generator = torch.Generator().manual_seed(0)
    shape = (4, SIDE, SIDE) if check.convolutions else (SIDE * SIDE,)
    centres = torch.randn(CLASSES, *shape, generator=generator)

    def examples(count: int) -> Examples:
        labels = torch.randint(CLASSES, (count,), generator=generator)
        return Examples(centres[labels] + torch.randn(count, *shape, generator=generator), labels)

    return Splits(examples(128), examples(32), examples(32))


def _difference(one: StateDict, other: StateDict) -> str:
    """The first name whose tensors differ; nothing if none."""
    if one.keys() != other.keys():
        return sorted(one.keys() ^ other.keys())[0]
    return next((name for name in one if not torch.equal(one[name], other[name])), "")
