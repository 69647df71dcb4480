"""What the host shows a method and an allocator: the model to read, budgets, masks by scores, and a few services."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sparsebench.errors import UsageError
from sparsebench.pruning.budget import Budget, dense_budget, resolve
from sparsebench.pruning.database import Database, Stitched, database_of, stitched
from sparsebench.pruning.slots import slots_of
from sparsebench.pruning.weights import Weights, layer_of, write

if TYPE_CHECKING:
    from sparsebench.pruning.calibration import Calibration
    from sparsebench.pruning.host import Host
    from sparsebench.pruning.target import Speedup


class Context:
    """All of it is to be read only: a method changes the model by the `Update` that it returns."""

    def __init__(self, host: Host, layers: tuple[str, ...], names: tuple[str, ...], generator: torch.Generator) -> None:
        self._host = host
        self.layers = layers  # every Linear and Conv2d weight of the model in order, excluded ones too
        self.prunable: Mapping[str, Tensor] = Weights(host.model, names)  # dense values by name
        self.generator = generator  # draw from this alone, never from the global random state
        self.round = self.epoch = self.step = 0  # of now; `step` counts from the beginning of the round
        self.rounds, self.epochs, self.steps_per_epoch = 1, 0, 0
        self.calibration: Calibration | None = None
        self.noted: dict[str, int] = {}  # what the method said, and how often
        self._budgets: dict[float, Budget] = {}

    @property
    def model(self) -> nn.Module:
        """The model as it is now; its layers may be sparse ones."""
        return self._host.model

    @property
    def masks(self) -> Mapping[str, Tensor]:
        """The masks in force by weight, True = kept."""
        return MappingProxyType(self._host.masks)

    @property
    def sparsity(self) -> float:
        """What the case asks for."""
        return self._host.sparsity

    @property
    def speedup(self) -> Speedup | None:
        """What the case asks for in place of a sparsity."""
        return self._host.speedup

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The options of the variant's name, as in gmp@regrow=true, over the defaults of the spec."""
        return self._host.parameters

    @property
    def steps(self) -> int:
        """Of a whole round."""
        return self.epochs * self.steps_per_epoch

    def budgets(self, sparsity: float | None = None) -> Budget:
        """What the allocator makes of a sparsity; that of the case unless one is given."""
        wanted = self.sparsity if sparsity is None else float(sparsity)
        if not 0 <= wanted < 1:
            raise UsageError(f"sparsity = {wanted!r}; use a share of pruned weights in [0, 1)")
        if wanted not in self._budgets:
            self._budgets[wanted] = (
                dense_budget(self.prunable)
                if wanted == 0
                else resolve(self._host.allocator, self.prunable, wanted, self)
            )
        return self._budgets[wanted]

    def budget(self, name: str, sparsity: float | None = None) -> int:
        """How many weights of a layer are kept; where the whole model competes, what the layer would keep alone."""
        return self.budgets(sparsity).layers[name]

    def select(
        self, scores: Mapping[str, Tensor], sparsity: float | None = None, *, empty: bool = False
    ) -> dict[str, Tensor]:
        """Masks of the highest scores within the budget of a sparsity, whatever they compete over.

        Raises `BudgetError` for a layer without a weight, unless `empty`: for masks that are in force for one pass.
        """
        return self.budgets(sparsity).select(scores, empty)

    def database(self, sparsities: Sequence[float]) -> Database:
        """For allocators: weight -> its values at each sparsity, as the method would leave them."""
        return database_of(self._host, sparsities)

    def stitched(self, images: int) -> Stitched:
        """For allocators: gives the loss of the model with other weights, over `images` of the calibration."""
        return stitched(self, images)

    def gradients(self, name: str) -> Tensor | None:
        """At GRADS_READY: the gradient of a weight [dense shape], zeros outside the pattern of a sparse layer."""
        module = layer_of(self.model, name)
        if hasattr(module, "values"):
            grad = module.values.grad
            return None if grad is None else module.snapshot().with_values(grad.detach()).to_dense()
        return None if module.weight.grad is None else module.weight.grad.detach()

    def optimizer_slots(self, name: str) -> dict[str, Tensor]:
        """What the optimizer remembers of a dense layer's weight, copied; {} before the first step."""
        optimizer = self._host.optimizer
        weight = getattr(layer_of(self.model, name), "weight", None)
        if optimizer is None or not isinstance(weight, nn.Parameter):
            return {}
        return {slot_name: slot.clone() for slot_name, slot in slots_of(optimizer, weight)}

    def state(self) -> dict[str, Tensor]:
        """The state dict of now under the dense model's names, copied."""
        return self._host.state()

    def snapshot(self, name: str = "snapshot") -> None:
        """Keep weights, buffers, optimizer, random state and the place in the schedule as they are at this event,
        before its update is applied."""
        self._host.pending_snapshot = name

    @property
    def reparametrised(self) -> tuple[str, ...]:
        """Weights that are computed by a function of `reparametrise`."""
        return tuple(self._host.holding.reparametrised)

    @property
    def snapshots(self) -> frozenset[str]:
        """Names of the snapshots that there are."""
        return frozenset(self._host.snapshots)

    def snapshot_state(self, name: str = "snapshot") -> dict[str, Tensor]:
        """The state dict of a snapshot."""
        return dict(self._host.snapshots[name]["model"])

    def restore(self, name: str = "snapshot", *, weights: bool = True, schedule: bool = True) -> None:
        """Go back to a snapshot before this event's update is applied: weights with optimizer, and the schedule.

        Masks stay; rewinding the learning rate alone is `weights=False`.
        """
        if name not in self._host.snapshots:
            raise UsageError(f"no snapshot is named {name!r}; take one with ctx.snapshot({name!r}) first")
        self._host.pending_restore = (name, weights, schedule)

    def note(self, text: str) -> None:
        """Say something that whoever reads the result must know; the same text again is counted."""
        self.noted[text] = self.noted.get(text, 0) + 1

    @property
    def notes(self) -> list[str]:
        """What was said so far, each text once."""
        return [text if count == 1 else f"{text} ({count} times)" for text, count in self.noted.items()]

    def skip_step(self) -> None:
        """At GRADS_READY: leave this step's gradients unused."""
        self._host.skip = True

    def reparametrise(self, name: str, function: nn.Module) -> None:
        """In `setup`: compute a weight as `function(weight)` from now on; its parameters are trained as well.

        At export the weight is what the function gave.
        """
        module = layer_of(self.model, name)
        nn.utils.parametrize.register_parametrization(module, name.rpartition(".")[2], function)
        self._host.holding.reparametrised.append(name)

    @contextmanager
    def perturbed(self, weights: Mapping[str, Tensor]) -> Iterator[None]:
        """In `step`: run a closure with other values of parameters, biases and norms too, by name.

        They, and the statistics of norms, are put back after.
        """
        computed = sorted(weights.keys() & set(self.reparametrised))
        if computed:
            raise UsageError(f"the weights of {computed[0]} are computed; they cannot be perturbed")
        every = {name: parameter.detach() for name, parameter in self.model.named_parameters()}
        before = {name: (self.prunable[name] if name in self.prunable else every[name]).clone() for name in weights}
        buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        try:
            for name, values in weights.items():
                write(self.model, name, values)
            yield
        finally:
            for name, values in before.items():
                write(self.model, name, values)
            for name, buffer in self.model.named_buffers():
                buffer.copy_(buffers[name])
