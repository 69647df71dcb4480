"""STR: weights are soft-thresholded, and each layer's threshold is trained by the gradient of the loss.

Kusupati et al., "Soft Threshold Weight Reparameterization for Learnable Sparsity", ICML 2020, section 3: the layer
computes with sign(W) relu(|W| - sigmoid(s)), where s is one number a layer. The loss pulls s down, weight decay on s
pulls it towards 0, where the threshold is 0.5; where they meet is the sparsity, and the paper finds decay and first s
for each sparsity by hand (`steer=false`, with `decay` beside the recipe's own, which optimizers apply to s as well).

A benchmark asks for a sparsity, so `steer=true` departs from the paper: in place of the decay a shift that all layers
share, sigmoid(s + shift), is set now and then so that the model is as sparse as a cubic curve to the case's sparsity
says. How that is spread over the layers is still learned. The allocator says how many weights there are in all, and
which layers stay dense.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sparsebench.plugin import NM, BudgetError, Calibration, Context, Event, Update, UsageError


class SoftThreshold(nn.Module):
    """sign(w) relu(|w| - sigmoid(s + shift)); `decay` times s is added to the gradient of s."""

    def __init__(self, start: float, decay: float = 0.0) -> None:
        super().__init__()
        self.s = nn.Parameter(torch.tensor(start))
        self.decay, self.shift = decay, 0.0
        self.s.register_hook(lambda grad: grad + self.decay * self.s.detach())

    def forward(self, weight: Tensor) -> Tensor:
        """Of any shape."""
        return weight.sign() * torch.relu(weight.abs() - torch.sigmoid(self.s + self.shift))


class STR:
    """Holds no mask in training: at the end the masks say what the thresholds left."""

    def __init__(self) -> None:
        self._functions: dict[str, SoftThreshold] = {}

    def setup(self, ctx: Context) -> None:
        """Give every layer that is not to stay dense a threshold."""
        p, budget = ctx.parameters, ctx.budgets()
        if not (0 < p["end"] <= 1 and p["updates"] >= 1):
            raise UsageError(
                f"str: end = {p['end']:g} must be a share of the training above 0, at most 1, and updates = "
                f"{p['updates']:g} at least 1, as in str@end=0.7,updates=100"
            )
        if not (math.isfinite(p["start"]) and math.isfinite(p["decay"]) and p["decay"] >= 0):
            raise UsageError(
                f"str: start = {p['start']:g} must be finite, and decay = {p['decay']:g} not negative, as in "
                "str@steer=false,start=-5,decay=0.03"
            )
        if isinstance(budget.scope, NM):
            raise BudgetError(f"str has thresholds, and they leave no {budget.scope} groups; use another allocator")
        if ctx.steps == 0:
            raise BudgetError("str learns its thresholds in training, and there are no steps; use 1 epoch or more")
        for name, weight in ctx.prunable.items():
            if budget.layers[name] < weight.numel():
                self._functions[name] = SoftThreshold(float(p["start"]), 0.0 if p["steer"] else float(p["decay"]))
                ctx.reparametrise(name, self._functions[name])

    def on_event(self, event: Event, ctx: Context) -> None:
        """After the steps of the curve, and after the last: steer."""
        if event is not Event.STEP_END or not ctx.parameters["steer"] or not self._functions:
            return
        every = max(1, ctx.steps // int(ctx.parameters["updates"]))
        if ctx.step % every == 0 or ctx.step == ctx.steps:
            self._steer(ctx, self.pruned(ctx))

    @staticmethod
    def pruned(ctx: Context) -> int:
        """How many weights the curve wants to be 0 by now."""
        all_of_them = sum(weight.numel() for weight in ctx.prunable.values()) - ctx.budgets().total
        left = 1 - min(1.0, ctx.step / (ctx.parameters["end"] * ctx.steps))
        return round(all_of_them * (1 - left**3))

    def _steer(self, ctx: Context, pruned: int) -> None:
        """Set the shift between the two weights that the model's sparsity lies between.

        A weight is 0 from the shift logit(|w|) - s on; one of 1 and more never is.
        """
        shifts = torch.cat([
            torch.logit(original(ctx, name).abs().double().clamp(max=1)).reshape(-1) - function.s.detach().double()
            for name, function in self._functions.items()
        ])  # fmt: skip
        pruned = min(pruned, len(shifts) - 1)
        if pruned > 0:
            # numpy selects in a fiftieth of the time of torch's kthvalue (0.5 ms against 17 for 300,000).
            ordered = np.partition(shifts.numpy(), (pruned - 1, pruned))
            shift = between(float(ordered[pruned - 1]), float(ordered[pruned]))
            for function in self._functions.values():
                function.shift = shift

    def compress(self, calibration: Calibration | None, ctx: Context) -> Update:
        """Masks of what is not 0; no weight changes."""
        masks = {name: weight != 0 for name, weight in ctx.prunable.items()}
        kept = {name: int(mask.sum()) for name, mask in masks.items()}
        wanted, total = ctx.budgets().total, sum(mask.numel() for mask in masks.values())
        if sum(kept.values()) != wanted:
            left = 1 - sum(kept.values()) / total
            ctx.note(f"thresholds left a sparsity of {left:.4f}, not {1 - wanted / total:.4f}")
        return Update(masks=masks, kept=kept)

    def state_dict(self) -> dict[str, Any]:
        """The shift; thresholds are parameters of the model."""
        return {"shift": next((function.shift for function in self._functions.values()), 0.0)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take it back."""
        for function in self._functions.values():
            function.shift = float(state["shift"])


def original(ctx: Context, name: str) -> Tensor:
    """The weight before its threshold."""
    owner, _, leaf = name.rpartition(".")
    return ctx.model.get_parameter(f"{owner}.parametrizations.{leaf}.original".lstrip(".")).detach()


def between(low: float, high: float) -> float:
    """A number between the two, either of which may be infinite: zeros are below any shift, ones above."""
    if math.isinf(high):
        return low + 1
    return high - 1 if math.isinf(low) else (low + high) / 2
