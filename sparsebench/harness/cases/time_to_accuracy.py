"""Time-to-accuracy cases: as accuracy cases, on kernels, with the seconds until a validation accuracy was reached.

What counts is the model that was asked for: an epoch reaches the goal only if it is as sparse then as at the end.
Seconds are those of steps with everything that methods and exchanging layers take; evaluation is left out.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparsebench.harness.cases.accuracy import AccuracyJob, host_of, kernels_of, recipe_of, unsupported, write_oracle
from sparsebench.harness.cases.base import Order
from sparsebench.harness.cases.models import LAYOUTS
from sparsebench.pruning.keeper import FixedMasks
from sparsebench.timing import race
from sparsebench.training.loop import TrainResult
from sparsebench.training.step import StepRunner

__all__ = ["TimeToAccuracyJob", "make", "unsupported", "write_oracle"]


def make(order: Order, backend: Any) -> TimeToAccuracyJob:
    """The training of one method on one backend."""
    return TimeToAccuracyJob(order)


class TimeToAccuracyJob(AccuracyJob):
    """A training whose seconds count, so that everybody has the better of torch's two layouts of images."""

    layout = LAYOUTS[0]

    def prepare(self, parameters: Mapping[str, Any]) -> None:
        """Race a step in both layouts, of a sparse method with its layers on kernels; it is not counted.

        What the first seed found serves the others, and a training that is resumed: the layouts round differently.
        """
        super().prepare(parameters)
        if self.batch.inputs.dim() != 4:
            return
        file = self._layout_file()
        if not file.exists():
            with torch.random.fork_rng(devices=[]):  # dropout draws from it
                times = race({name: self._step(name) for name in LAYOUTS})
            file.parent.mkdir(exist_ok=True)
            file.write_text(min(times, key=lambda name: times[name]))
        self.layout = file.read_text()
        self.note = "; ".join(filter(None, [self.note, self.layout.replace("nchw", "NCHW")]))

    def _layout_file(self) -> Path:
        """One for every method, sparsity and model, whatever the seed."""
        p = {key: value for key, value in self.order.parameters.items() if key != "seed"}
        spec, options = self.order.entries["method"].spec, self.order.options.get("method", {})
        text = json.dumps([p, spec.name, dict(options)], sort_keys=True, default=str)
        return self.order.state.parent / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.layout"

    def first_model(self) -> nn.Module:
        """In the layout that was faster."""
        return self._laid_out(super().first_model(), self.layout)

    def more_scores(self, result: TrainResult) -> dict[str, float]:
        """Seconds to the goal, if it was reached; layers exchanged."""
        goal = float(self.order.parameters["goal"])
        seconds = result.seconds_to(goal, self.host.sparsity_now)
        swaps = {"swaps": float(self.kernels.swaps)} if self.kernels is not None else {}
        return {**({} if seconds is None else {"seconds_to_goal": seconds}), **swaps}

    def _step(self, layout: str) -> StepRunner:
        """A step of the model as it is most of the time: its largest weights kept, on kernels if there are any."""
        model = self._laid_out(copy.deepcopy(self.fresh), layout).train()
        optimizer = recipe_of(self.order).make_optimizer(model.parameters())
        masks: dict[str, Tensor] = {}
        kernels = kernels_of(self.order, self.batch)
        if kernels is not None:
            ctx = host_of(self.order, model, self.splits).ctx
            masks = ctx.select({name: weight.abs() for name, weight in ctx.prunable.items()})
            kernels.settle(model, masks, optimizer)
        present = dict(model.named_parameters())
        dense = {name: mask for name, mask in masks.items() if name in present}
        return StepRunner(model, optimizer, self.batch, FixedMasks(model, dense))

    @staticmethod
    def _laid_out(model: nn.Module, layout: str) -> nn.Module:
        if layout != LAYOUTS[1]:
            return model
        model.register_forward_pre_hook(_channels_last)
        return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _channels_last(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Batches come as the data set holds them; turning them round counts as time of the forward."""
    return (inputs[0].contiguous(memory_format=torch.channels_last), *inputs[1:])
