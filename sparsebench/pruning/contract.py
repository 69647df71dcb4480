"""What a pruning method and an allocator are, and how they speak with the host: plain records and protocols.

The host owns the masks, the optimizer, the loop, the random state and the invariants. A method answers events with
an `Update`, the only way in which it changes a model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from sparsebench.pruning.calibration import Calibration
    from sparsebench.pruning.context import Context
    from sparsebench.pruning.target import Speedup

StateDict = dict[str, Tensor]

# What a method may say that it needs, and what the host does about it.
NEEDS: Mapping[str, str] = {
    "dense_grads": "gradients of all weights at GRADS_READY, masked ones too, when `wants_dense_grads` says so",
    "calibration": "training examples in `compress`",
    "sequential": "that `compress` yields updates, each applied before the next is asked for",
    "sample_grads": "gradients of single batches in `compress`",
    "latency": "measured times of layers",
    "closure": "its own `step`, which may run the closure more than once",
    "rounds": "more than one training, one after the other",
    "reparametrise": "`ctx.reparametrise` in `setup`",
    "own_budget": "budgets of its own: the case's sparsity is a wish, what came out is reported",
}

# Functions that a method must have because of what it needs.
ANSWERED: Mapping[str, str] = {"dense_grads": "wants_dense_grads", "closure": "step", "rounds": "rounds"}
CALIBRATED = frozenset({"calibration", "sample_grads"})  # needs that take training examples


class NM(NamedTuple):
    """`keep` of every `group` weights along the input channels: 2:4 is NM(keep=2, group=4)."""

    keep: int
    group: int

    def __str__(self) -> str:
        return f"{self.keep}:{self.group}"


Scope = Literal["layer", "model"] | NM  # over what weights compete


class Event(StrEnum):
    """Moments at which a method is asked for an update."""

    ROUND_BEGIN = "round begin"  # of every training after the first
    EPOCH_BEGIN = "epoch begin"
    STEP_BEGIN = "step begin"  # before the forward
    GRADS_READY = "gradients ready"  # before masks and optimizer touch them
    STEP_END = "step end"


class Update(NamedTuple):
    """The only way a method changes a model; names are those of the parameters.

    `masks` are held to a budget: that of the case's sparsity, or of `sparsity` where a schedule is under way (0 for a
    dense phase), or, of a method that needs "own_budget", to `kept` by layer.
    """

    masks: dict[str, Tensor] | None = None  # bool, True = keep
    weights: dict[str, Tensor] | None = None  # new values, of the dense shape
    reset: Literal["none", "changed", "all"] = "none"  # optimizer slots: of weights that changed state, or all
    sparsity: float | None = None
    kept: dict[str, int] | None = None


@dataclass
class Services:
    """What the training loop does for a method: take a snapshot, go back to one (weights, schedule)."""

    take: Callable[[], dict[str, Any]]
    put: Callable[[dict[str, Any], bool, bool], None]


class Method(Protocol):
    """What `MethodSpec.load` gives, called with the options of the variant's name. Every function is optional."""

    def setup(self, ctx: Context) -> Update | None:
        """Before training; budgets are resolved. May add parameters by `ctx.reparametrise`."""

    def rounds(self, ctx: Context) -> int:
        """How many trainings there are, one after the other; 1 unless it needs "rounds"."""

    def on_event(self, event: Event, ctx: Context) -> Update | None:
        """The answer to one event; None changes nothing."""

    def wants_dense_grads(self, ctx: Context) -> bool:
        """At STEP_BEGIN: whether this step's gradients must be those of all weights (needs "dense_grads")."""

    def step(self, closure: Callable[[], float], ctx: Context) -> None:
        """Leave in `.grad` what the optimizer is to use (needs "closure"). `closure()` clears the gradients, runs
        forward and backward, and gives the loss."""

    def compress(self, calibration: Calibration | None, ctx: Context) -> Update | Iterator[Update] | None:
        """After the last step: one update, or several that are each applied before the next is asked for."""

    def export(self, ctx: Context) -> dict[str, StateDict]:
        """The models to keep, by name; {"sparse": ctx.state()} unless a method has others."""

    def state_dict(self) -> dict[str, Any]:
        """What the method remembers between events, tensors and plain data, so that a training can be resumed."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take it back."""


class Allocator(Protocol):
    """What `AllocatorSpec.load` gives when it is called without arguments (or with the text behind the name's colon).

    Optional: `scope` says over what weights compete: "layer" (unless it says otherwise), "model", or an `NM`.
    `needs` are words of NEEDS. `reads_weights` says that its answer depends on them, so that they must be trained ones.
    Asked for a speedup, an allocator without `allocate_speedup` gets the least sparsity that comes to it.
    """

    def allocate(self, layers: Mapping[str, Tensor], target: float, ctx: Context) -> dict[str, float]:
        """The sparsity of every layer in `layers`, for an overall `target` above 0."""

    def allocate_speedup(self, layers: Mapping[str, Tensor], speedup: Speedup, ctx: Context) -> dict[str, float]:
        """Optional: the sparsity of every layer for a speedup; `allocate` then gives the same for what that sums to."""

    def fastest(self, layers: Mapping[str, Tensor], speedup: Speedup, ctx: Context) -> dict[str, float]:
        """Beside `allocate_speedup`: the sparsities of the greatest speedup, without any search."""


def offers(method: Any, name: str) -> Any:
    """The method's function of this name, or None: every function of the protocol is optional."""
    found = getattr(method, name, None)
    return found if callable(found) else None
