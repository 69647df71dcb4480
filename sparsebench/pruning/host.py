"""The host of a method: asks it at every event, applies its updates, holds its masks, and checks the invariants.

A method never changes a model: it returns an `Update`, and the host holds every answer to the budget. That keeps
out the faults of published code: an off-by-one threshold, ties dropped together, momentum that revives pruned
weights, a reset that does nothing, a checkpoint that is not sparse.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sparsebench.errors import BudgetError, InvariantError, UsageError
from sparsebench.pruning.calibration import Calibration
from sparsebench.pruning.context import Context
from sparsebench.pruning.contract import ANSWERED, CALIBRATED, NEEDS, Event, Services, StateDict, Update, offers
from sparsebench.pruning.holding import Holding
from sparsebench.pruning.invariants import pure_evaluation, untouched
from sparsebench.pruning.kernels import Kernels
from sparsebench.pruning.masks import prunable, sparsity_of
from sparsebench.pruning.target import Speedup, settle
from sparsebench.pruning.updates import checked_masks, checked_weights
from sparsebench.pruning.weights import dense_state, layer_of

RARE = frozenset({Event.ROUND_BEGIN, Event.EPOCH_BEGIN})  # events at which everything can be looked at


class Host:
    """One method on one model, through a whole training. The loop calls what is below in this order.

    `sparsity` is the case's, or `speedup` in its place; `late`: found of the trained model, before `compress`, and 0
    until then. `exclude` names layers to leave out. `strict` looks after every event for what else is only looked for
    at mask updates, at the end of an epoch and at export: for tests and `sparsebench check`.
    """

    def __init__(
        self,
        model: nn.Module,
        method: Any,
        allocator: Any,
        *,
        sparsity: float,
        seed: int = 0,
        exclude: Collection[str] = (),
        name: str = "",
        needs: Collection[str] = (),
        parameters: Mapping[str, Any] | None = None,
        kernels: Kernels | None = None,
        calibration: Calibration | None = None,
        strict: bool = False,
        speedup: Speedup | None = None,
        late: bool = False,
    ) -> None:
        if not 0 <= sparsity < 1:
            raise UsageError(f"sparsity = {sparsity!r}; use a share of pruned weights in [0, 1)")
        layers = prunable(model, exclude)
        if not layers:
            raise BudgetError("the model has no Linear or Conv2d weight left to prune")
        self.model, self.method, self.allocator = model, method, allocator
        self.speedup, self.late, self.asked = speedup, late, float(sparsity)
        self.sparsity = 0.0 if late else self.asked
        self.name = name or type(method).__name__
        self.needs = frozenset(needs) | frozenset(getattr(method, "needs", ()))
        unknown = sorted(self.needs - NEEDS.keys())
        if unknown:
            raise UsageError(f"method {self.name} needs {unknown[0]!r}; known: {', '.join(NEEDS)}")
        for need, function in ANSWERED.items():
            if need in self.needs and offers(method, function) is None:
                raise UsageError(f"method {self.name} needs {need!r} and has no {function}(); add it")
        if calibration is None and (wanting := sorted(self.needs & CALIBRATED)):
            raise UsageError(
                f"method {self.name} needs {wanting[0]!r}, and there are no calibration examples here; "
                "use it in an accuracy case"
            )
        self._on_event: Callable[[Event, Context], Update | None] | None = offers(method, "on_event")
        self.parameters = dict(parameters or {})
        self.calibration, self.strict = calibration, strict
        self.holding = Holding(model, layers, kernels)
        self.snapshots: dict[str, dict[str, Any]] = {}
        self.pending_snapshot: str | None = None
        self.pending_restore: tuple[str, bool, bool] | None = None
        self.services = Services(self._no_snapshots, self._no_snapshots)
        self.skip = False
        self.updates = 0  # of masks, so far
        self.changes = 0  # of masks or weights
        self.ctx = Context(self, tuple(prunable(model)), tuple(layers), torch.Generator().manual_seed(seed))
        self.ctx.calibration = calibration

    def begin(self, epochs: int = 0, steps_per_epoch: int = 0) -> None:
        """Resolve the budget, call `setup`, ask for the number of rounds. The optimizer is made after this."""
        ctx = self.ctx
        ctx.epochs, ctx.steps_per_epoch = epochs, steps_per_epoch
        with self._watched("its allocator", strict=True):
            settle(self, trained=False)
        setup = offers(self.method, "setup")
        if setup is not None:
            strict = "reparametrise" not in self.needs
            with self._watched("setup", strict) if strict else untouched(nn.Module(), self._where("setup")):
                update = setup(ctx)
            self._apply(update, "setup")
        if "rounds" in self.needs and (rounds := offers(self.method, "rounds")) is not None:
            ctx.rounds = int(rounds(ctx))
            if ctx.rounds < 1:
                raise UsageError(f"method {self.name}: {ctx.rounds} rounds; there must be at least 1")

    def attach(self, optimizer: Optimizer) -> None:
        """Take the optimizer that will train the model; raises `UsageError` for one that is not known."""
        self.holding.attach(optimizer)

    @property
    def masks(self) -> dict[str, Tensor]:
        """The masks in force by weight, True = kept."""
        return self.holding.masks

    @property
    def optimizer(self) -> Optimizer | None:
        """Who trains the model."""
        return self.holding.optimizer

    def event(self, event: Event) -> None:
        """Ask the method, and do what it answers."""
        if self._on_event is None:
            return
        if self.strict or event in RARE:
            with self._watched(event.value, self.strict):
                update = self._on_event(event, self.ctx)
        else:  # an event of every step can afford to look at torch's counts of writes, and at no more
            before = self.holding.versions()
            update = self._on_event(event, self.ctx)
            if self.holding.versions() != before:
                where = self._where(event.value)
                raise InvariantError("untouched", f"{where} changed a weight itself; return an Update instead")
        self._serve(event)
        if update is not None:
            self._apply(update, event.value)
        elif self.strict and event is not Event.GRADS_READY:
            self._check(event.value)

    def _serve(self, event: Event) -> None:
        """What the method asked for: a snapshot of now, or to go back to one."""
        if self.pending_snapshot is not None:
            name, self.pending_snapshot = self.pending_snapshot, None
            self.snapshots[name] = self.services.take()
        if self.pending_restore is not None:
            name, weights, schedule = self.pending_restore
            self.pending_restore = None
            if schedule and event not in (Event.ROUND_BEGIN, Event.EPOCH_BEGIN):
                raise UsageError(
                    f"{self._where(event.value)}: a schedule is rewound between epochs; use schedule=False"
                )
            self.services.put(self.snapshots[name], weights, schedule)

    def step_begin(self) -> None:
        """Before the forward; layers become dense if this step's gradients must be those of all weights."""
        self.skip = False
        self.event(Event.STEP_BEGIN)
        if "dense_grads" in self.needs and self.method.wants_dense_grads(self.ctx):
            self.holding.leave_kernels()

    def run_step(self, closure: Callable[[], float]) -> None:
        """Forward and backward: the closure once, unless the method has a step of its own."""
        if "closure" not in self.needs:
            closure()
            return
        before = {n: p.detach().clone() for n, p in self.model.named_parameters()} if self.strict else {}
        self.method.step(closure, self.ctx)
        for name, parameter in self.model.named_parameters():
            if name in before and not torch.equal(before[name], parameter):
                raise InvariantError("untouched", f"{self._where('step')} left {name} changed; see ctx.perturbed")

    def gradients_ready(self) -> bool:
        """Before the optimizer; False if the method wants no step of it."""
        self.event(Event.GRADS_READY)
        self.holding.mask_gradients()
        return not self.skip

    def step_end(self) -> None:
        """After the optimizer."""
        self.ctx.step += 1
        self.event(Event.STEP_END)
        self.holding.settle()

    def epoch_end(self) -> AbstractContextManager[None]:
        """Check everything; evaluate inside the context that this gives, which moves nothing."""
        self._check("epoch end")
        return pure_evaluation(self.model, self._where("epoch end"))

    def finish(self) -> None:
        """After the last step: compress, then hold the result to the sparsity that was asked for."""
        with self._watched("its allocator", strict=True):
            settle(self, trained=True)
        for update in self._compressed():
            self._apply(update, "compress")
        self._check("the end")
        if "own_budget" not in self.needs:
            broken = self.ctx.budgets().broken(self.masks)
            if broken:
                raise InvariantError("final-budget", f"{self._where('the end')}: at {self.sparsity:g}, {broken}")

    def _compressed(self) -> Iterator[Update | None]:
        """What `compress` answers, one after the other; each is applied before the next is asked for."""
        compress = offers(self.method, "compress")
        if compress is None:
            return
        with self._watched("compress", strict=True):
            made = compress(self.calibration, self.ctx)
        if not isinstance(made, Iterator):
            yield made
            return
        while True:
            with self._watched("compress", strict=True):
                update = next(made, None)
            if update is None:
                return
            yield update

    notes = property(lambda self: self.ctx.notes)  # what the method said by `ctx.note`, each text once

    @property
    def sparsity_now(self) -> float:
        """The share of prunable weights that the masks in force drop."""
        return sparsity_of(self.masks)

    def state_dict(self) -> dict[str, Any]:
        """What a new host of the same model and method needs to go on: masks, random state, snapshots, the method's."""
        own = offers(self.method, "state_dict")
        return {
            "masks": dict(self.masks),
            "generator": self.ctx.generator.get_state(),
            "snapshots": dict(self.snapshots),
            "updates": self.updates,
            "notes": dict(self.ctx.noted),
            "swaps": self.holding.kernels.swaps if self.holding.kernels is not None else 0,
            "method": own() if own is not None else {},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave; the weights are loaded apart from it."""
        self.holding.enforce(dict(state["masks"]))
        self.ctx.generator.set_state(state["generator"])
        self.updates = int(state["updates"])
        self.snapshots, self.ctx.noted = dict(state["snapshots"]), dict(state["notes"])
        if self.holding.kernels is not None:
            self.holding.kernels.swaps = int(state["swaps"])
        own = offers(self.method, "load_state_dict")
        if own is not None:
            own(state["method"])

    def export(self) -> dict[str, StateDict]:
        """The models to keep, by name, as dense state dicts; "sparse" is that of the weights as they are."""
        export = offers(self.method, "export")
        if export is None:
            return {"sparse": self.state()}
        with self._watched("export", strict=True):
            made: dict[str, StateDict] = export(self.ctx)
        return made

    def state(self) -> StateDict:
        """The state dict under the dense model's names; reparametrised weights as what they compute."""
        state = dense_state(self.model)
        for name in self.holding.reparametrised:
            owner, _, leaf = name.rpartition(".")
            prefix = f"{owner}.parametrizations.".lstrip(".")
            state = {key: value for key, value in state.items() if not key.startswith(prefix)}
            state[name] = getattr(layer_of(self.model, name), leaf).detach().clone()
        return state

    def _apply(self, update: Update | None, when: str) -> None:
        if self.pending_snapshot is not None or self.pending_restore is not None:  # events were served before
            self._no_snapshots()
        if update is None:
            return
        where = self._where(when)
        if not isinstance(update, Update):
            raise InvariantError("scope", f"{where} returned {type(update).__name__}, not an Update or None")
        if update.reset not in ("none", "changed", "all"):
            raise UsageError(f"{where}: reset = {update.reset!r}; use none, changed or all")
        new = {**self.masks, **checked_masks(update, self.ctx, self.needs, where)}
        weights = checked_weights(update, self.ctx, where)
        self.updates += update.masks is not None
        self.changes += 1
        self.holding.change(new, weights, update.reset)
        self._check(when)

    def _check(self, when: str) -> None:
        self.holding.check(self._where(when))

    def _watched(self, when: str, strict: bool) -> AbstractContextManager[None]:
        return untouched(self.model, self._where(when), self.optimizer, strict)

    def _where(self, when: str) -> str:
        return f"method {self.name}, {when} (epoch {self.ctx.epoch}, step {self.ctx.step})"

    def _no_snapshots(self, *_: Any) -> Any:
        raise UsageError(f"method {self.name} wants a snapshot outside of a training; use on_event")
