"""The one training loop: rounds of epochs of steps, under a method's host or with fixed masks; it can be resumed."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparsebench.errors import CheckpointError, TrainingError, UsageError
from sparsebench.pruning.contract import Event
from sparsebench.pruning.host import Host, Services
from sparsebench.pruning.keeper import FixedMasks
from sparsebench.pruning.masks import prunable, sparsity_of
from sparsebench.pruning.weights import dense_state
from sparsebench.training.batches import batches_per_epoch, epoch_batches
from sparsebench.training.data import Splits
from sparsebench.training.evaluate import evaluate, judge
from sparsebench.training.norms import reestimate_norms
from sparsebench.training.recipe import Recipe, learning_rate
from sparsebench.training.result import Mark, TrainResult
from sparsebench.training.state import read_state, write_state
from sparsebench.training.step import SPLITS, StepRunner

Progress = Callable[[int, float, float], object]


@dataclass
class Trainer:
    """A training under way. `host` brings a method; without one `masks` (by parameter name) are held throughout.

    `progress(epoch, loss, validation_accuracy)` is called after every epoch, counted from 1. With `file` the state is
    kept there after every epoch, and a training that finds it goes on from it, bit for bit (with one thread).
    """

    model: nn.Module
    splits: Splits
    recipe: Recipe
    host: Host | None = None
    masks: Mapping[str, Tensor] | None = None
    progress: Progress | None = None
    file: Path | None = None
    marks: list[Mark] = field(default_factory=list, init=False)
    totals: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0), init=False)
    loss: float = field(default=0.0, init=False)
    round: int = field(default=0, init=False)
    epoch: int = field(default=0, init=False)
    steps: int = field(default=0, init=False)  # in all rounds
    place: int = field(default=0, init=False)  # in the schedule of this round

    def run(self) -> TrainResult:
        """Train from the beginning, or from where `file` says. The global random state is put back at the end."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.recipe.seed)
            self._begin()
            if self.file is not None and self.file.exists():
                self._load(read_state(self.file), self.file)
            rounds = self.host.ctx.rounds if self.host is not None else 1
            while self.round < rounds:
                self._round()
            self._finish()
        quality = judge(self.model, self.splits.test)
        return TrainResult(
            accuracy=quality.accuracy,
            validation_accuracy=self.marks[-1].validation_accuracy,
            loss=self.loss,
            seconds=sum(self.totals.values()) / 1e9,
            splits_ns=dict(self.totals),
            steps=self.steps,
            marks=tuple(self.marks),
            test_loss=quality.loss,
        )

    def _begin(self) -> None:
        self.per_epoch = batches_per_epoch(self.splits.train, self.recipe.batch)
        if self.host is not None:
            if self.host.model is not self.model:
                raise UsageError("the host holds another model than the one that is to be trained")
            self.host.services = Services(self._take, self._put)
            began = time.perf_counter_ns()
            self.host.begin(self.recipe.epochs, self.per_epoch)
            self.totals["mask"] += time.perf_counter_ns() - began
        self.optimizer = self.recipe.make_optimizer(self.model.parameters())
        if self.host is not None:
            self.host.attach(self.optimizer)
        dense = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in prunable(self.model).items()}
        self.fixed_sparsity = sparsity_of({**dense, **(self.masks or {})})
        holder = self.host or FixedMasks(self.model, self.masks)
        self.step = StepRunner(self.model, self.optimizer, iter(()), holder)

    def _finish(self) -> None:
        """Compress, make statistics anew if weights went, and see that the end is a number."""
        if self.host is not None:
            before, weights = self.host.changes, {n: w.clone() for n, w in self.host.ctx.prunable.items()}
            with self.step.counted("mask"):
                self.host.finish()
            self.totals["mask"] += self.step.splits_ns["mask"]
            if any(not torch.equal(weights[n], w) for n, w in self.host.ctx.prunable.items()):
                self._renew_norms(self.host)
            if self.host.changes > before or not self.marks:
                self._mark()
        elif not self.marks:
            self._mark()
        for name, parameter in self.model.named_parameters():
            if not bool(parameter.isfinite().all()):
                raise TrainingError(f"{name} is not finite after the last step; lower the learning rate")

    def _renew_norms(self, host: Host) -> None:
        """Make statistics anew, and keep them if they are as good on the validation part: the same for every method.

        They are not always: a network that was trained on moved and mirrored images is worse with the statistics of
        images as they are (ResNet-20 on CIFAR-10, 30 % pruned: 88.2 against 91.2 %; 70 %: 82.9 against 72.4).
        """
        old, kept = self._validate(), {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        with self.step.counted("mask"):
            count = reestimate_norms(self.model, self.splits.train, self.recipe.batch, self.recipe.seed)
        self.totals["mask"] += self.step.splits_ns["mask"]
        if count and self._validate() < old:
            host.ctx.note("norm statistics as they were: new ones were worse on the validation part")
            for name, buffer in self.model.named_buffers():
                buffer.copy_(kept[name])

    def _round(self) -> None:
        """One training from its first epoch, or from where a snapshot put it."""
        if self.round > 0 and self.epoch == 0 and self.place == 0:
            self._event(Event.ROUND_BEGIN)
        while self.epoch < self.recipe.epochs:
            self._epoch()
        self._where()  # the end of this round, as `compress` sees it
        self.round, self.epoch, self.place = self.round + 1, 0, 0

    def _epoch(self) -> None:
        self.model.train()
        self._event(Event.EPOCH_BEGIN)
        done = self.place - self.epoch * self.per_epoch  # a snapshot may lie in the midst of an epoch
        batches = epoch_batches(self.splits.train, self.recipe.batch, self.recipe.seed, self.epoch)
        for _ in range(done):
            next(batches)
        self.step.batches = batches
        losses = []
        for _ in range(done, self.per_epoch):
            rate = learning_rate(self.place, self.recipe.epochs * self.per_epoch, self.recipe.lr)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self._where()
            self.step.steps = self.steps
            self.step()
            losses.append(self.step.loss)
            self.place, self.steps = self.place + 1, self.steps + 1
            for name, ns in self.step.splits_ns.items():
                self.totals[name] += ns
        self.loss = sum(losses) / max(1, len(losses))
        self.epoch += 1
        self._mark()
        if self.progress is not None:
            self.progress(self.round * self.recipe.epochs + self.epoch, self.loss, self.marks[-1].validation_accuracy)
        if self.file is not None:
            write_state(self.file, self._whole())

    def _mark(self) -> None:
        if self.host is not None:
            with self.host.epoch_end():
                accuracy = self._validate()
        else:
            accuracy = self._validate()
        sparsity = self.host.sparsity_now if self.host is not None else self.fixed_sparsity
        self.marks.append(Mark(sum(self.totals.values()) / 1e9, accuracy, sparsity))

    def _validate(self) -> float:
        return evaluate(self.model, self.splits.validation)

    def _event(self, event: Event) -> None:
        if self.host is not None:
            self._where()
            with self.step.counted("mask"):
                self.host.event(event)
            self.totals["mask"] += self.step.splits_ns["mask"]

    def _where(self) -> None:
        if self.host is not None:
            ctx = self.host.ctx
            ctx.round, ctx.epoch, ctx.step = self.round, self.epoch, self.place

    def _take(self) -> dict[str, Any]:
        """A snapshot for a method: of the dense model, so that it can be gone back to with other masks."""
        host, place = self.host, self.place
        if host is not None:
            host.holding.leave_kernels()
            place = host.ctx.step  # at the end of a step it is ahead of the loop
        state = self._now(place)
        if host is not None:
            host.holding.settle()
        return state

    def _now(self, place: int) -> dict[str, Any]:
        return {
            "model": dense_state(self.model),
            "optimizer": copy.deepcopy(self.optimizer.state_dict()),
            "place": [place // self.per_epoch, place],
            "random": torch.get_rng_state(),
        }

    def _whole(self) -> dict[str, Any]:
        """What a new process needs to go on from here. Layers stay on their kernels, slots have their lengths."""
        return {
            **self._now(self.place), "totals": dict(self.totals), "marks": [list(mark) for mark in self.marks],
            "loss": self.loss, "round": self.round, "steps": self.steps, "training": self._identity(),
            "host": self.host.state_dict() if self.host is not None else {},
        }  # fmt: skip

    def _identity(self) -> dict[str, Any]:
        """What must be the same for a training to go on from a state."""
        host = self.host
        recipe = {"recipe": asdict(self.recipe), "steps per epoch": self.per_epoch}
        if host is None:
            return recipe
        speedup = host.speedup.times if host.speedup is not None else None
        return {
            **recipe, "method": host.name, "parameters": host.parameters, "sparsity": host.asked, "speedup": speedup,
            "allocator": type(host.allocator).__name__, "layers": sorted(host.masks),
        }  # fmt: skip

    def _put(self, state: dict[str, Any], weights: bool, schedule: bool) -> None:
        """Go back to a state that `_take` gave."""
        if self.host is not None:
            self.host.holding.leave_kernels()
        if weights:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
            torch.set_rng_state(state["random"])
        if schedule:
            self.epoch, self.place = state["place"]
        if self.host is not None:
            self.host.holding.enforce()

    def _load(self, state: dict[str, Any], file: Path) -> None:
        """Everything that `_whole` wrote; raises `CheckpointError` for what another training did."""
        mine, other = self._identity(), state.get("training", {})
        odd = next((key for key in mine | other if mine.get(key) != other.get(key)), None)
        try:
            if odd is not None:
                raise UsageError(f"{odd} is {other.get(odd)!r} there and {mine.get(odd)!r} here")
            if self.host is not None:
                self.host.holding.leave_kernels()
            self.model.load_state_dict(state["model"])
            if self.host is not None:  # the same masks put the same layers on kernels: their slots have these lengths
                self.host.load_state_dict(state["host"])
            self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
            torch.set_rng_state(state["random"])
            self.epoch, self.place = state["place"]
        except (AttributeError, KeyError, RuntimeError, TypeError, UsageError, ValueError) as error:
            line = (str(error).strip().splitlines() or [type(error).__name__])[0][:240]
            raise CheckpointError(
                f"{file}: is the state of another training ({line}); delete it to begin anew"
            ) from error
        self.totals, self.loss = dict(state["totals"]), state["loss"]
        self.marks = [Mark(*mark) for mark in state["marks"]]
        self.round, self.steps = state["round"], state["steps"]
        self._where()
        if self.epoch == self.recipe.epochs:  # written at the end of a round
            self.round, self.epoch, self.place = self.round + 1, 0, 0


def train(
    model: nn.Module,
    splits: Splits,
    recipe: Recipe | None = None,
    *,
    host: Host | None = None,
    masks: Mapping[str, Tensor] | None = None,
    progress: Progress | None = None,
    file: Path | None = None,
) -> TrainResult:
    """Train `model` in place on `splits.train`; see `Trainer`.

    The same seed gives the same weights with one thread. Raises `TrainingError` when the loss stops being finite, and
    `InvariantError` when a method breaks a rule.
    """
    return Trainer(model, splits, recipe or Recipe(), host, masks, progress, file).run()
